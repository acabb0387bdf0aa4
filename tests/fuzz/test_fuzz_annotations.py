"""Mutated annotation files and label maps: each loads right or is refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz_annotations.py")


@pytest.mark.slow
def test_no_mutation_gives_a_wrong_result_or_a_crash(tmp_path):
    command = [sys.executable, str(SCRIPT), "--count", "100", "--seed", "20", "--seconds", "60"]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}{done.stderr[-2000:]}"
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["loaded"] + counts["refused"] == 100
    assert min(counts["loaded"], counts["refused"]) > 10  # both ways are taken
