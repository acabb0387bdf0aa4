"""benchmarks/gpu.sh has one chance on a GPU that is lent: what it does must be right before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402, of the folder above


def run(*arguments):
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), *arguments],
        env=os.environ | dict(PYTHON=sys.executable),
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_time_given_is_kept_and_a_second_start_goes_on(tmp_path, monkeypatch, capsys):
    done = run("check", "--rehearse", "--seconds", "1", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "missing: " in done.stdout and "Swin-large, 400x680, bfloat16" in done.stdout
    names = [task.name for task in gpu.plan_checks(rehearse=True)]
    commit = gpu.Results(tmp_path / "check.jsonl").commit
    rows = [json.dumps({"name": name, "commit": commit}) for name in names]
    (tmp_path / "check.jsonl").write_text("\n".join(rows) + "\n")
    argv = ["gpu.py", "check", "--rehearse", "--seconds", "900", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", argv)
    assert gpu.main() == 0
    assert f"{len(names)} of {len(names)} done" in capsys.readouterr().out


def test_what_fails_is_stored_and_ends_in_status_1(tmp_path, capsys):
    def fail():
        raise ValueError("wrong")

    results = gpu.Results(tmp_path / "check.jsonl")
    results.take(gpu.Task("one", fail))
    results.take(gpu.Task("two", lambda: gpu.judge(lambda: "an error of 3")))
    results.take(gpu.Task("three", lambda: gpu.judge(lambda: None)))
    assert results.close(["one", "two", "three"]) == 1
    assert "2 failed" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "check.jsonl").read_text().splitlines()]
    assert [row.get("failed") for row in rows] == ["ValueError: wrong", "an error of 3", None]


@pytest.mark.parametrize("row", gpu.ROWS, ids=lambda row: row.name)
def test_each_row_has_work(row):
    work = gpu.make_work(dict(row.work), torch.device("cpu"))
    assert work.part == ("config" if "config" in row.work else "backbone")
    backend = row.work.get("attn_backend", "triton")  # `auto` would take what passes a self-test
    assert work.attn_backend == backend
    if work.config is not None:
        assert work.config.model.backbone.attn_backend == backend
        assert row.peers == (work.config.default_scope,)


def test_names_are_unique():
    for names in ([row.name for row in gpu.ROWS], [t.name for t in gpu.plan_checks(False)]):
        assert len(set(names)) == len(names)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter is for machines without")
def test_a_check_and_two_rows_in_the_interpreter():
    """The others differ in their sizes and configs alone."""
    (check,) = [t for t in gpu.plan_checks(True) if t.name.startswith("Swin-tiny")]
    assert check.run() == {}
    row = gpu.measure_row(gpu.ROWS[0], torch.device("cpu"), True)
    assert not row["failed"] and row["text"].startswith("swin_mm ")
    assert "mmdet " in row["text"] and "goal 9 ms" in row["text"]
    flex = gpu.time_attention(3, "inference", torch.device("cpu"))
    assert flex["text"].startswith("swin_mm ") and "flex_attention " in flex["text"]
