"""Whole runs with `--shard`: saved by some processes, resumed by others."""

import json
import signal
from statistics import fmean

import pytest
import torch
from fuzz_kills import wait
from kill_jobs import fork, import_all, train_job
from kill_task import write_kill_config

from swin_mm.checkpoint import load_checkpoint_file
from swin_mm.cli.main import run_command

CONFIG = """
model = dict(type='ToyModel')  # without random numbers, which differ between processes
train_dataloader.update(batch_size={batch}, dataset=dict(type='ToyDataset'))
val_dataloader['batch_size'] = {batch}
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict()
train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=1)
default_hooks['curves'] = None
default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best='toy/error', rule='less')
custom_hooks = [
    dict(type='RecordLosses'), dict(type='SignalOnce', number={number}, step=3),
    dict(type='EMAHook', ema_type='swin_mm.ExponentialMovingAverage', momentum=0.1)]
"""


def run(folder, work_dir, ranks=1, epochs=4, number=0, options=()):
    """How the processes of a training ended, and what they printed."""
    text = CONFIG.format(batch=4 // ranks, epochs=epochs, number=number)
    job = train_job(write_kill_config(folder, text), "toy", ranks, options)
    output = folder / "output"
    output.write_text("")
    return wait(job.start(work_dir, output)), output.read_text()


def read_losses(work_dir):
    """The loss of each step, of all processes, and the metrics of each validation."""
    found = {}
    for line in (work_dir / "records" / "losses").read_text().splitlines():
        step, *values = line.split()
        values = [float.fromhex(value.rpartition("=")[2]) for value in values]
        found.setdefault(step, []).append(values)
    return {step: [fmean(part) for part in zip(*v, strict=True)] for step, v in found.items()}


def measure(folder, checkpoint):
    """What `test` measures in one process."""
    options = [str(folder / "toy.py"), str(checkpoint), "--work-dir", str(folder / "test")]
    assert wait([fork(lambda: run_command("test", options), folder / "output")]) == ["0"]
    return json.loads((folder / "test" / "metrics.json").read_text())["metrics"]


@pytest.mark.slow
def test_four_processes_then_two_then_one_are_as_one_alone(tmp_path):
    import_all()
    alone, work = tmp_path / "alone", tmp_path / "work"
    assert run(tmp_path, alone)[0] == ["0"]

    ends, text = run(tmp_path, work, 4, number=int(signal.SIGTERM), options=["--shard"])
    assert ends == ["143"] * 4, text
    assert f"saved in {work / 'interrupted'}; --resume goes on" in text
    assert (work / "interrupted" / ".metadata").is_file()

    ends, text = run(tmp_path, work, 2, epochs=2, options=["--shard"])
    assert ends == ["0"] * 2, text
    names = {path.name for path in work.iterdir() if "epoch" in path.name}
    assert names == {"epoch_2.pth", *(name for name in names if name.startswith("best_"))}
    *_, measured = (work / "records" / "losses").read_text().splitlines()
    metrics = measure(tmp_path, work / "epoch_2.pth")  # as sharded processes measured, to the bit
    wanted = " ".join(f"{name}={value.hex()}" for name, value in sorted(metrics.items()))
    assert measured.partition(" ")[2] == wanted

    ends, text = run(tmp_path, work)
    assert ends == ["0"], text
    found, wanted = read_losses(work), read_losses(alone)
    assert found.keys() == wanted.keys()
    for step, values in wanted.items():
        assert found[step] == pytest.approx(values, abs=1e-5), step
    ours, theirs = (load_checkpoint_file(path / "epoch_4.pth") for path in (work, alone))
    for part in ("state_dict", "ema_state_dict"):
        torch.testing.assert_close(dict(ours[part]), dict(theirs[part]), rtol=0, atol=1e-5)
