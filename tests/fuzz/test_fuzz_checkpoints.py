"""A part of what `fuzz_checkpoints.py` does: damaged checkpoints load right or are refused."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoint_kinds import KINDS
from fuzz_checkpoints import LOADED, fuzz

COUNT = 20 * len(KINDS)


@pytest.mark.slow
def test_changed_checkpoints_load_right_or_end_in_one_line(tmp_path):
    lines = list(fuzz(list(range(COUNT)), seed=7, folder=tmp_path))
    assert [line["number"] for line in lines] == list(range(COUNT))
    assert [line for line in lines if line["outcome"] not in (*LOADED, "refused")] == []
    assert {line["outcome"] for line in lines} >= {"refused", "equal", "as another reader"}
    assert max(line["MiB"] for line in lines) < 200
