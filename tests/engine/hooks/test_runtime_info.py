"""Whole trainings: logged, drawn and saved as mmengine does, with numbers read once a log line."""

import json

import pytest
import torch
from host_reads import HostReads
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from toy_task import write_toy_config

LOOP = """
default_hooks = dict({hooks}logger=dict(type='LoggerHook', interval=3),
    checkpoint=dict(type='swin_mm.CheckpointHook', interval=1), timer=None)
optim_wrapper = dict(
    type='{kind}', clip_grad=dict(max_norm=0.5), constructor='{constructor}',
    optimizer=dict(type='AdamW', lr=0.02, weight_decay=0.01, fused={fused}),
    paramwise_cfg=dict(bias_lr_mult=2.0))
loader = dict(
    batch_size=1, num_workers=0, dataset=dict(type='ToyDataset'),
    collate_fn=dict(type='default_collate'))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), **loader)
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=2)
"""
OURS = dict(
    hooks="runtime_info=dict(type='swin_mm.RuntimeInfoHook'), ",
    kind="swin_mm.OptimWrapper",
    constructor="swin_mm.MergedOptimWrapperConstructor",
    fused=True,
)
STOCK = dict(
    hooks="", kind="OptimWrapper", constructor="DefaultOptimWrapperConstructor", fused=None
)


@HOOKS.register_module()
class CountReads(Hook):
    """Counts host reads of every training step, hooks included, but for its first."""

    priority = "VERY_HIGH"

    def __init__(self):
        self.counts = []
        self.reads = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.reads is not None:
            self.reads.__exit__(None, None, None)
            self.counts.append(self.reads.count)
        self.reads = HostReads()
        self.reads.__enter__()

    def after_train_epoch(self, runner):
        self.reads.__exit__(None, None, None)
        self.reads = None


def train(folder, settings, **options):
    folder.mkdir()
    cfg = Config.fromfile(write_toy_config(folder, LOOP.format(**settings)))
    cfg.update(work_dir=str(folder), experiment_name=str(folder), **options)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def read_log(folder):
    (file,) = folder.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_log_weights_and_checkpoint_are_mmengines(tmp_path):
    ours, stock = (
        train(tmp_path / name, settings) for name, settings in (("ours", OURS), ("stock", STOCK))
    )
    found, expected = read_log(tmp_path / "ours"), read_log(tmp_path / "stock")
    assert len(found) == len(expected) == 11  # five lines an epoch, and one of validation
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        assert line == pytest.approx(other, rel=1e-5)
    assert {"loss", "grad_norm", "lr"} <= found[0].keys()
    torch.testing.assert_close(ours.model.linear.weight, stock.model.linear.weight)

    hubs = [
        torch.load(tmp_path / name / "epoch_1.pth", weights_only=False)["message_hub"]
        for name in ("ours", "stock")
    ]
    histories = [hub["log_scalars"]["train/loss"] for hub in hubs]
    assert type(histories[0]) is HistoryBuffer
    assert len(histories[0].data[0]) == 16
    assert histories[0].data[0] == pytest.approx(histories[1].data[0], rel=1e-5)
    assert hubs[0]["resumed_keys"] == hubs[1]["resumed_keys"]


def test_no_step_reads_a_number_from_the_device(tmp_path):
    counts = {}
    for name, settings in (("ours", OURS), ("stock", STOCK)):
        runner = train(tmp_path / name, settings, custom_hooks=[dict(type="CountReads")])
        (hook,) = (hook for hook in runner.hooks if isinstance(hook, CountReads))
        counts[name] = hook.counts[1:]  # the first step tells the hub of new keys
    assert len(counts["ours"]) == len(counts["stock"]) == 29
    assert min(counts["stock"]) >= 2  # loss and norm
    # Adam's own count of steps, a number of the CPU, is not read in the fused kernel either.
    assert max(counts["ours"]) == 0


def test_resumes_with_histories_that_go_on(tmp_path):
    train(tmp_path / "whole", OURS)
    checkpoint = str(tmp_path / "whole" / "epoch_1.pth")
    resumed = train(tmp_path / "resumed", OURS, resume=True, load_from=checkpoint)
    loss = resumed.message_hub.get_scalar("train/loss").data[0]
    assert len(loss) == 32
    whole = torch.load(tmp_path / "whole" / "epoch_2.pth", weights_only=False)
    again = torch.load(tmp_path / "resumed" / "epoch_2.pth", weights_only=False)
    name = "linear.weight"
    torch.testing.assert_close(again["state_dict"][name], whole["state_dict"][name])
