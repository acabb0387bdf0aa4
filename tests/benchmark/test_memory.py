"""Memory of a step on the CPU: what is allocated at once, and nothing else."""

import mmap
import sys
from pathlib import Path

import pytest
import torch

from swin_mm.benchmark import memory
from swin_mm.benchmark.memory import measure_growth

MIB = 2**20
pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="nobody counts elsewhere"
)


def touch(mebibytes):
    return torch.ones(mebibytes * MIB // 4)


@pytest.mark.parametrize("mebibytes", [160, 320])
def test_the_most_at_one_time(mebibytes):
    """Freed memory counts once, whatever was allocated before, in blocks of more than 32 MiB."""
    touch(200)

    def run():
        first = touch(mebibytes)
        del first
        second, third = touch(mebibytes // 2), touch(mebibytes // 4)
        return second, third

    # Threads that other tests have left in the process can only add to it.
    growth = min(measure_growth(run) for _ in range(3))
    assert growth == pytest.approx(mebibytes * MIB, abs=4 * MIB)


def test_pages_of_files_are_not_counted():
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    with (
        library.open("rb") as file,
        mmap.mmap(file.fileno(), 64 * MIB, prot=mmap.PROT_READ) as code,
    ):
        growth = measure_growth(lambda: (touch(100), code[:: mmap.PAGESIZE]))
    assert growth == pytest.approx(100 * MIB, abs=4 * MIB)


def test_what_is_already_there_is_not_counted():
    held = touch(100).add_(1)  # loads the code too
    assert measure_growth(lambda: held.add_(1)) < 4 * MIB


@pytest.mark.parametrize(
    ("name", "value"),
    [("platform", "darwin"), ("CLEAR_REFS", memory.STATUS / "none")],
    ids=["another system", "no such file"],
)
def test_nobody_counts(name, value, monkeypatch):
    monkeypatch.setattr(sys if name == "platform" else memory, name, value)
    assert measure_growth(lambda: None) is None
