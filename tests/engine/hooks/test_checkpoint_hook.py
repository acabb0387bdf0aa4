"""The checkpoint hook: what it keeps, what it resumes from, and that no kill destroys anything."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from toy_task import write_toy_config

from swin_mm.cli.next_steps import find_result
from swin_mm.engine import CheckpointHook
from swin_mm.engine.checkpoint_files import find_damage

TESTS = Path(__file__).parents[2]
KEEP_ONE = """
train_cfg = dict(type='swin_mm.EpochBasedTrainLoop', max_epochs=2, val_interval=1)
default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best='toy/error', rule='less')
"""


@pytest.fixture
def train(tmp_path):
    """Trains the toy task in `tmp_path/work`; keyword arguments go to the checkpoint hook."""
    names = iter(range(100))

    def run(epochs=2, resume=False, load_from=None, **hook):
        cfg = Config.fromfile(write_toy_config(tmp_path))
        cfg.merge_from_dict({"work_dir": str(run.folder), "train_cfg.max_epochs": epochs})
        cfg.update(resume=resume, load_from=load_from, log_level="WARNING")
        # mmengine's message hub is shared between runs of one name.
        cfg.experiment_name = f"{tmp_path.name}_{next(names)}"
        cfg.default_hooks.checkpoint.update(hook)
        runner = Runner.from_cfg(cfg)
        runner.train()
        return runner

    run.folder = tmp_path / "work"
    return run


def files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".py" and path.is_file())


def test_keeps_the_newest_and_names_it(train):
    train(epochs=3, max_keep_ckpts=2)
    assert files(train.folder) == ["epoch_2.pth", "epoch_3.pth", "last_checkpoint"]
    assert (train.folder / "last_checkpoint").read_text() == str(train.folder / "epoch_3.pth")


def test_keeps_the_limit_when_resumed(train):
    train(epochs=2, max_keep_ckpts=2)
    train(epochs=3, max_keep_ckpts=2, resume=True)
    assert files(train.folder) == ["epoch_2.pth", "epoch_3.pth", "last_checkpoint"]


def test_keeps_the_best_of_each_metric(train):
    # The second epoch lessens the error and raises the accuracy.
    train(epochs=2, max_keep_ckpts=1, save_best=["toy/error", "toy/accuracy"], rule="less")
    assert files(train.folder) == [
        "best_toy_accuracy_epoch_1.pth",
        "best_toy_error_epoch_2.pth",
        "epoch_2.pth",
        "last_checkpoint",
    ]


def test_best_is_remembered_when_resumed(train):
    best = {"save_best": "toy/accuracy", "rule": "less", "max_keep_ckpts": 1}
    train(epochs=1, **best)
    runner = train(epochs=2, resume=True, **best)
    assert files(train.folder) == [
        "best_toy_accuracy_epoch_1.pth",
        "epoch_2.pth",
        "last_checkpoint",
    ]
    assert runner.message_hub.get_info("best_ckpt").endswith("best_toy_accuracy_epoch_1.pth")


def result_of(runner):
    return find_result(runner, next(h for h in runner.hooks if isinstance(h, CheckpointHook)))


@pytest.mark.parametrize("second", ["toy/accuracy", "auto"])
def test_another_best_metric_starts_anew(train, second):
    train(epochs=1, save_best="toy/error", rule="greater", greater_keys=["accuracy"])
    resumed = {"resume": True, "save_best": second, "greater_keys": ["accuracy"], "less_keys": []}
    # An error of 1.05 was the greatest; an accuracy is below that.
    runner = train(epochs=2, **resumed)
    assert (train.folder / "best_toy_error_epoch_1.pth").is_file()
    best = train.folder / "best_toy_accuracy_epoch_2.pth"
    assert result_of(runner) == (str(best), "best toy/accuracy: 0.7882")
    # With no validation to come, the log still knows which metric it is.
    runner = train(epochs=2, **resumed)
    assert result_of(runner) == (str(best), "best toy/accuracy: 0.7882")


def test_result_of_a_run_resumed_in_another_folder(train):
    best = {"save_best": "toy/error", "rule": "greater"}  # that of the first epoch
    train(epochs=1, **best)
    first, train.folder = train.folder, train.folder.with_name("other")
    options = {"resume": True, "load_from": str(first / "epoch_1.pth")}
    runner = train(epochs=2, **options, **best)
    found = (str(first / "best_toy_error_epoch_1.pth"), "best toy/error: 1.053")
    assert result_of(runner) == found
    Path(found[0]).unlink()
    assert result_of(runner) == (str(train.folder / "epoch_2.pth"), "the newest")


def test_unmeasured_best_metric_names_the_measured_ones(train):
    with pytest.raises(ValueError, match=r"save_best='coco/bbox_mAP'.*'toy/accuracy', 'toy/error'"):
        train(save_best="coco/bbox_mAP")


@pytest.mark.parametrize("pointer", ["missing", "stale", "broken", "absent file"])
def test_resumes_from_the_newest_whole_checkpoint(train, pointer):
    train(epochs=3)
    path = train.folder / "last_checkpoint"
    expected = 3
    if pointer == "missing":
        path.unlink()
    elif pointer == "stale":
        path.write_text(str(train.folder / "epoch_1.pth"))
        os.utime(path, (0, 0))
    elif pointer == "broken":
        os.truncate(train.folder / "epoch_3.pth", 1000)
        expected = 2
    else:
        (train.folder / "epoch_3.pth").unlink()
        expected = 2
    runner = train(epochs=expected, resume=True)
    assert runner.epoch == expected
    assert runner.iter == 4 * expected
    assert path.read_text() == str(train.folder / f"epoch_{expected}.pth")


def test_resume_without_any_whole_checkpoint_starts_over(train):
    train(epochs=1)
    os.truncate(train.folder / "epoch_1.pth", 1000)
    assert train(epochs=1, resume=True).iter == 4
    assert find_damage(train.folder / "epoch_1.pth") is None


def write_damaged(path, content):
    """A file, or where the content is a dict, a folder of files."""
    if isinstance(content, bytes):
        path.with_name(f"{path.name}.pth").write_bytes(content)
        return
    path.mkdir()
    for name, part in content.items():
        (path / name).write_bytes(part)


DAMAGED = {
    "text": b"half",
    "start of a file": b"PK\x03",
    "empty folder": {},
    "folder without index": {"__0_0.distcp": b"PK\x03"},
    "folder with a damaged index": {"index.pth": b"PK\x03"},
}


@pytest.mark.parametrize("name", ["epoch_1", "best_epoch_1"])
@pytest.mark.parametrize("content", [None, *DAMAGED.values()], ids=["nothing", *DAMAGED])
def test_a_start_is_a_warning_where_something_was_lost(train, capsys, content, name):
    train.folder.mkdir()
    if content is not None:
        write_damaged(train.folder / name, content)
    runner = train(epochs=1, resume=True)
    assert runner.epoch == 1
    is_found = name == "epoch_1" or isinstance(content, bytes) or "index.pth" in (content or ())
    is_lost = content is not None and is_found  # another folder may be anything
    assert ("No whole checkpoint in" in capsys.readouterr().out) == is_lost


@pytest.mark.parametrize("has_pointer", [False, True], ids=["no pointer", "pointer to the older"])
@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
def test_a_resume_warns_of_what_it_passes_over(train, capsys, content, has_pointer):
    train(epochs=1)
    if not has_pointer:
        (train.folder / "last_checkpoint").unlink()
    write_damaged(train.folder / "epoch_2", content)
    capsys.readouterr()
    assert train(epochs=1, resume=True).iter == 4
    lines = [line for line in capsys.readouterr().out.splitlines() if "is passed over" in line]
    assert len(lines) == 1 and "WARNING" in lines[0] and "epoch_2" in lines[0]


def test_named_checkpoint_is_resumed_as_named(train):
    train(epochs=2)
    runner = train(epochs=1, resume=True, load_from=str(train.folder / "epoch_1.pth"))
    assert runner.iter == 4
    assert (train.folder / "last_checkpoint").read_text() == str(train.folder / "epoch_2.pth")


def test_unfinished_files_are_removed(train):
    train.folder.mkdir()
    (train.folder / ".epoch_7.pth.123.partial").write_bytes(b"half")
    train(epochs=1)
    assert files(train.folder) == ["epoch_1.pth", "last_checkpoint"]


def test_other_folder_for_checkpoints(train, tmp_path):
    out = {"out_dir": str(tmp_path / "elsewhere")}
    train(epochs=1, **out)
    assert files(tmp_path / "elsewhere" / "work") == ["epoch_1.pth"]
    (train.folder / "last_checkpoint").unlink()
    assert train(epochs=1, resume=True, **out).iter == 4


@pytest.mark.slow
def test_no_kill_loses_more_than_the_work_since_the_last_checkpoint(tmp_path):
    """Kills at each of the steps that training takes in the file system, and resumes."""
    config = write_toy_config(tmp_path, KEEP_ONE)
    script = Path(__file__).with_name("kill_everywhere.py")
    result = subprocess.run(
        [sys.executable, str(script), str(config), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    undisturbed, *kills = map(json.loads, result.stdout.splitlines())
    assert undisturbed["files"] == [
        "best_toy_error_epoch_2.pth",
        "epoch_2.pth",
        "last_checkpoint",
        "toy.py",
    ]
    assert any("epoch_2.pth" in kill["killed_at"] for kill in kills)
    assert any(kill["killed_at"].startswith("remove") for kill in kills)

    steps_kept, best_kept = 0, False
    for kill in kills:
        assert kill["state"] == undisturbed["state"], kill["killed_at"]
        assert kill["files"] == undisturbed["files"], kill["killed_at"]
        # What has once been saved is never lost again.
        epochs = [int(name[6:-4]) for name in kill["survivors"] if name.startswith("epoch_")]
        assert max(epochs, default=0) >= steps_kept
        steps_kept = max(epochs, default=0)
        best = any(name.startswith("best_") for name in kill["survivors"])
        assert best or not best_kept
        best_kept = best
    assert steps_kept == 2 and best_kept


class TwoOptimizers(BaseModel):
    """Two layers, each trained by an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ModuleDict({"often": nn.Linear(4, 1), "seldom": nn.Linear(4, 1)})

    def forward(self, inputs, mode="tensor"):
        return {name: part(inputs).square().mean() for name, part in self.parts.items()}

    def train_step(self, data, optim_wrapper):
        losses = self(data["inputs"])
        for name, loss in losses.items():
            optim_wrapper[name].update_params(loss)
        return losses


def make_optimizers(model: TwoOptimizers) -> OptimWrapperDict:
    counts = {"often": 2, "seldom": 4}  # batches between two updates
    optimizers = {n: torch.optim.Adam(p.parameters(), lr=0.1) for n, p in model.parts.items()}
    return OptimWrapperDict(
        **{n: OptimWrapper(o, accumulative_counts=counts[n]) for n, o in optimizers.items()}
    )


def test_gradients_of_several_optimizers_survive(tmp_path):
    def train(name, **options):
        model = TwoOptimizers()
        runner = Runner(
            model=model,
            work_dir=str(tmp_path / name),
            train_dataloader=dict(
                dataset=[{"inputs": torch.full((4,), 1.0 + i)} for i in range(11)],
                sampler=dict(type="DefaultSampler", shuffle=False),
                batch_size=1,
                num_workers=0,
                collate_fn=dict(type="default_collate"),
            ),
            train_cfg=dict(type="swin_mm.IterBasedTrainLoop", max_iters=11),
            optim_wrapper=make_optimizers(model),
            default_hooks=dict(
                checkpoint=dict(type="swin_mm.CheckpointHook", interval=3, by_epoch=False)
            ),
            default_scope="mmengine",
            experiment_name=f"{tmp_path.name}_{name}",
            **options,
        )
        runner.train()
        return model.state_dict()

    whole = train("whole")
    checkpoint = str(tmp_path / "whole" / "iter_3.pth")
    resumed = train("resumed", resume=True, load_from=checkpoint)
    initial = TwoOptimizers().state_dict()
    for name, value in whole.items():
        assert torch.equal(resumed[name], value) and not torch.equal(initial[name], value), name
