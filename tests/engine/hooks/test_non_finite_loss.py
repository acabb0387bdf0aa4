"""The guard against non-finite losses: what it names, stops and leaves out."""

import json
import math
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from toy_task import ToyDataset, write_toy_config

from swin_mm.engine import NonFiniteLossError, NonFiniteLossHook

CONFIG = """
model = dict(type='PoisonedModel', bad={bad}, value={value!r})
train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)
train_dataloader['collate_fn'] = dict(type='pseudo_collate')
train_cfg['max_epochs'] = 1
param_scheduler = []
val_cfg = val_dataloader = val_evaluator = None
test_cfg = test_dataloader = test_evaluator = None
default_hooks['logger'] = dict(type='LoggerHook', interval=1)
optim_wrapper = {wrapper}
custom_hooks = [dict(type='swin_mm.NonFiniteLossHook', action={action!r})]
"""
NAMES = count()
PLAIN = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02, weight_decay=0.01))


@MODELS.register_module()
class PoisonedModel(BaseModel):
    """The toy task, whose loss is `value` where the batch holds sample `bad`."""

    def __init__(self, bad=-1, value="nan"):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.bad, self.value = bad, float(value)

    def forward(self, inputs, data_samples=None, target=None, index=None, mode="tensor"):
        inputs, target = torch.stack(inputs), torch.stack(target)
        loss = (self.linear(inputs).squeeze(1) - target).square().mean()
        if self.bad in index:
            loss = loss * self.value
        return {"loss_fit": loss, "losses": [torch.zeros(())], "accuracy": loss.detach()}


def build(tmp_path, action="skip", bad=5, value="nan", wrapper=PLAIN):
    text = CONFIG.format(action=action, bad=bad, value=value, wrapper=wrapper)
    cfg = Config.fromfile(write_toy_config(tmp_path, text))
    cfg.work_dir = str(tmp_path / "work")
    # mmengine's message hub is shared between runs of one name.
    cfg.experiment_name = f"{tmp_path.name}_{next(NAMES)}"
    runner = Runner.from_cfg(cfg)
    # A batch that names its files, as mmdet's and mmseg's do.
    original = runner.train_dataloader.collate_fn

    def collate(samples):
        batch = original(samples)
        files = [SimpleNamespace(img_path=f"image_{i}.jpg") for i in batch["index"]]
        return {**batch, "data_samples": files}

    runner.train_dataloader.collate_fn = collate
    return runner


def run(runner):
    runner.train()
    return runner.model.linear.weight.detach().clone()


def train_by_hand(tmp_path, batches):
    """The weights after steps on these samples."""
    runner = build(tmp_path)  # for its initial weights
    linear, data = runner.model.linear, ToyDataset()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.02, weight_decay=0.01)
    for batch in batches:
        optimizer.zero_grad()
        (linear(data.inputs[batch]).squeeze(1) - data.targets[batch]).square().mean().backward()
        optimizer.step()
    return linear.weight


class Watch(Hook):
    """Keeps the weights after every batch."""

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, *_, **__):
        self.weights.append(runner.model.linear.weight.detach().clone())


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, NonFiniteLossHook))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_stop_names_the_images_before_the_weights_change(tmp_path, value):
    runner = build(tmp_path, "stop", value=value)
    files = ", ".join(f"image_{i}.jpg" for i in (4, 5, 6, 7))
    with pytest.raises(
        NonFiniteLossError, match=f"in step 2: loss_fit of {files}; the weights are"
    ):
        runner.train()
    assert torch.equal(runner.model.linear.weight, train_by_hand(tmp_path, [[0, 1, 2, 3]]))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_skip_leaves_out_that_step_alone(tmp_path, value, capsys):
    runner = build(tmp_path, value=value)
    weight = run(runner)
    assert hook_of(runner).skipped == 1
    message = "non-finite loss in step 2: loss_fit of image_4.jpg, image_5.jpg, image_6.jpg, "
    assert message + "image_7.jpg; skipped, 1 so far" in capsys.readouterr().out

    others = [[0, 1, 2, 3], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert torch.equal(weight, train_by_hand(tmp_path, others))


def test_skipped_losses_do_not_spoil_the_means_of_the_log(tmp_path):
    runner = build(tmp_path)
    run(runner)
    history = runner.message_hub.get_scalar("train/loss")
    values, _ = history.data
    assert len(values) == 3 and all(math.isfinite(value) for value in values)


def test_with_accumulation_the_whole_step_is_left_out(tmp_path):
    wrapper = {**PLAIN, "accumulative_counts": 2}
    runner = build(tmp_path, wrapper=wrapper)  # the second batch of the first step
    start = runner.model.linear.weight.detach().clone()
    watch = Watch()
    runner.register_hook(watch)
    run(runner)
    assert torch.equal(watch.weights[1], start)
    assert not torch.equal(watch.weights[3], start)
    assert watch.weights[3].isfinite().all()
    assert hook_of(runner).skipped == 1


def test_bfloat16_is_guarded_as_well(tmp_path):
    wrapper = {**PLAIN, "type": "swin_mm.AmpOptimWrapper", "dtype": "bfloat16"}
    runner = build(tmp_path, wrapper=wrapper)
    assert run(runner).isfinite().all()
    assert hook_of(runner).skipped == 1


def test_steps_that_a_loss_scaler_leaves_out_are_none_of_ours(tmp_path):
    """float16's scaler, on a CPU: the scaled loss is infinite, the loss is not."""
    runner = build(tmp_path, "stop", bad=-1)
    runner.optim_wrapper = runner.build_optim_wrapper(
        dict(PLAIN, type="swin_mm.AmpOptimWrapper", dtype="bfloat16")
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    runner.optim_wrapper.loss_scaler = scaler
    weight = runner.model.linear.weight.detach().clone()
    after = run(runner)
    assert scaler.get_scale() < 2.0**127  # it has looked for a smaller one
    assert hook_of(runner).skipped == 0
    assert after.isfinite().all() and not torch.equal(after, weight)


def test_a_scaler_that_does_not_step_does_not_hide_the_loss(tmp_path):
    runner = build(tmp_path, "stop")
    runner.optim_wrapper = runner.build_optim_wrapper(
        dict(PLAIN, type="swin_mm.AmpOptimWrapper", dtype="bfloat16")
    )
    runner.optim_wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with pytest.raises(NonFiniteLossError, match="in step 2: loss_fit of image_4.jpg"):
        runner.train()


def leave_out_together(rank, folder):
    """One of two processes has a loss that is not finite; what each of them does is written."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    hook = NonFiniteLossHook("skip")
    warnings = []
    logger = SimpleNamespace(warning=warnings.append)
    hook.runner = SimpleNamespace(iter=6, logger=logger)
    decisions = []
    for value in (1.0, float("nan")):
        hook._start_step()
        hook.files = [f"of_{rank}.jpg"]
        losses = {"loss": torch.tensor(value if rank == 1 else 1.0)}
        hook._look(nn.Identity(), (), losses)
        decisions.append(hook._handle())
    Path(folder, f"{rank}.json").write_text(json.dumps([decisions, warnings]))
    dist.destroy_process_group()


def test_processes_leave_out_a_step_together(tmp_path):
    # Forks, since new processes would import everything again.
    torch.multiprocessing.start_processes(
        leave_out_together, (str(tmp_path),), nprocs=2, start_method="fork"
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    # The main process, whose log is read, names the images of the other.
    message = "non-finite loss in step 7: loss of of_1.jpg; skipped, 1 so far"
    assert first == second == [[False, True], [message]]


def test_many_files_are_counted():
    hook = NonFiniteLossHook()
    hook.files = [f"{i}.jpg" for i in range(20)]
    hook.checks = [SimpleNamespace(list_bad=lambda: ["loss"])]
    assert hook._describe().endswith("15.jpg and 4 more")


def test_unknown_action():
    with pytest.raises(ValueError, match="action must be 'stop' or 'skip', got 'ignore'"):
        NonFiniteLossHook("ignore")
