"""benchmarks/gpu.sh has one chance on a borrowed GPU: each of its commands must be right before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swin_mm.cli.benchmark import check_args, parse_args, plan_candidates, plan_workloads

ROOT = Path(__file__).parents[2]
RECORDER = """#!{python}
import json, sys
with open({record!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """The arguments of each Python that the script starts."""
    folder = tmp_path_factory.mktemp("gpu_script")
    (folder / "benchmarks").mkdir()
    script = shutil.copy(ROOT / "benchmarks" / "gpu.sh", folder / "benchmarks")
    python, record = folder / "python", folder / "record"
    python.write_text(RECORDER.format(python=sys.executable, record=str(record)))
    python.chmod(0o755)
    sanitizer = folder / "compute-sanitizer"  # runs what follows its four options
    sanitizer.write_text('#!/bin/sh\nshift 4\nexec "$@"\n')
    sanitizer.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", script],
        env=os.environ | dict(PYTHON=str(python), PATH=path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all done" in done.stdout
    return [json.loads(line) for line in record.read_text().splitlines()]


def test_every_measurement_has_a_plan(commands):
    measured = [command[1:] for command in commands if command[0] == "tools/benchmark.py"]
    assert len(measured) == 12 + 12 + 1 + 8
    for arguments in measured:
        args = parse_args(arguments)
        check_args(args)
        workloads = plan_workloads(args)
        assert plan_candidates(args, workloads[0][1])[0].library == "swin_mm", arguments


def test_backends_are_compared_by_name(commands):
    """`auto` would take the kernels in both, or in neither."""
    backends = []
    for command in (c for c in commands if c[0] == "tools/benchmark.py" and "neck" not in c):
        options = [word.rpartition("attn_backend=")[2] for word in command if "_backend=" in word]
        if "--attn-backend" in command:
            options.append(command[command.index("--attn-backend") + 1])
        (backend,) = options
        backends.append(backend)
        assert command[command.index("--out") + 1].endswith((f"_{backend}", "_profile"))
    assert backends.count("sdpa") == 14 and backends.count("triton") == 14 + 4


def test_results_do_not_overwrite_one_another(commands):
    folders = [command[command.index("--out") + 1] for command in commands if "--out" in command]
    assert len(set(folders)) == len(folders) == 33


def test_the_tests_that_it_runs_exist(commands):
    for command in (c for c in commands if c[:2] == ["-m", "pytest"]):
        texts = {name: (ROOT / name).read_text() for name in command if name.endswith(".py")}
        assert len(texts) == 4 and all("mark.gpu" in text for text in texts.values())
        if "-k" in command:
            for word in command[command.index("-k") + 1].split(" or "):
                assert any(f"def test_{word}" in t or f"{word}_" in t for t in texts.values()), word
