"""Memory of a step on the CPU: what is allocated at once, and nothing else."""

import mmap
import subprocess
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


IN_A_YOUNG_PROCESS = """
import torch
from swin_mm.benchmark.memory import measure_growth

def touch(mebibytes):
    return torch.ones(mebibytes * 2**20 // 4)

def run():
    first = touch(size)
    del first
    second, third = touch(size // 2), touch(size // 4)
    return second, third

touch(200)
for size in (160, 320):
    print(measure_growth(run))
"""


def test_the_most_at_one_time():
    """Freed memory counts once, in blocks of more than 32 MiB. The heap of a process that has run
    other tests has gaps in which such blocks lie too and are kept."""
    command = [sys.executable, "-c", IN_A_YOUNG_PROCESS]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = [160 * MIB, 320 * MIB]
    assert [int(line) for line in printed.split()] == pytest.approx(expected, abs=4 * MIB)


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
