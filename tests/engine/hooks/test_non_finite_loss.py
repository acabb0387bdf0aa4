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
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn
from toy_task import ToyDataset, write_toy_config

from swin_mm.engine import NonFiniteLossError, NonFiniteLossHook

CONFIG = """
model = dict(type='PoisonedModel', bad={bad}, value={value!r}, is_gradient={is_gradient})
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
    """The toy task, whose loss is `value` where the batch holds sample `bad`.

    Or its gradient alone is NaN there, as that of a root at 0 is; `bad` 100 means any sample.
    """

    def __init__(self, bad=-1, value="nan", is_gradient=False):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.bad, self.value, self.is_gradient = bad, float(value), is_gradient

    def forward(self, inputs, data_samples=None, target=None, index=None, mode="tensor"):
        inputs, target = torch.stack(inputs), torch.stack(target)
        loss = (self.linear(inputs).squeeze(1) - target).square().mean()
        if self.bad in (*index, 100):
            root = (self.linear.weight.sum() * 0).square().sqrt()
            loss = loss + root if self.is_gradient else loss * self.value
        return {"loss_fit": loss, "losses": [torch.zeros(())], "accuracy": loss.detach()}


def build(tmp_path, action="skip", bad=5, value="nan", wrapper=PLAIN, is_gradient=False):
    text = CONFIG.format(
        action=action, bad=bad, value=value, wrapper=wrapper, is_gradient=is_gradient
    )
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


def train_by_hand(tmp_path, batches, wrapper=PLAIN):
    """The weights after steps on these samples."""
    runner = build(tmp_path)  # for its initial weights
    linear, data = runner.model.linear, ToyDataset()
    settings = dict(wrapper["optimizer"])
    optimizer = getattr(torch.optim, settings.pop("type"))(linear.parameters(), **settings)
    for batch in batches:
        optimizer.zero_grad()
        (linear(data.inputs[batch]).squeeze(1) - data.targets[batch]).square().mean().backward()
        if "clip_grad" in wrapper:
            nn.utils.clip_grad_norm_(linear.parameters(), **wrapper["clip_grad"])
        optimizer.step()
    return linear.weight


class Watch(Hook):
    """Keeps the weights and the number of skipped steps after every batch."""

    def __init__(self):
        self.weights, self.skipped = [], []

    def after_train_iter(self, runner, *_, **__):
        self.weights.append(runner.model.linear.weight.detach().clone())
        self.skipped.append(hook_of(runner).skipped)


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


def optimizer_wrapper(kind, clip=None, **kwargs):
    wrapper = dict(type="swin_mm.OptimWrapper", optimizer=dict(type=kind, lr=0.02, **kwargs))
    return {**wrapper, "clip_grad": clip} if clip else wrapper


BATCHES = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
FUSED = optimizer_wrapper("AdamW", fused=True)
WRAPPERS = {
    "sgd": PLAIN,
    "clipped": optimizer_wrapper("SGD", clip=dict(max_norm=0.1), momentum=0.9),
    "fused sgd": optimizer_wrapper("SGD", momentum=0.9, fused=True),
    "fused adamw": FUSED,
    "fused clipped": optimizer_wrapper("AdamW", clip=dict(max_norm=0.1), fused=True),
}


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_gradients_that_are_not_finite_skip_that_step_alone(tmp_path, capsys, wrapper, step):
    runner = build(tmp_path, bad=BATCHES[step - 1][1], wrapper=wrapper, is_gradient=True)
    weight = run(runner)
    others = [batch for batch in BATCHES if batch is not BATCHES[step - 1]]
    assert torch.equal(weight, train_by_hand(tmp_path, others, wrapper))
    first = BATCHES[step - 1][0]
    message = f"non-finite gradients in step {step}: gradients of image_{first}.jpg, "
    assert message in capsys.readouterr().out
    # Losses were finite, so that all are logged.
    assert len(runner.message_hub.get_scalar("train/loss").data[0]) == 4


@pytest.mark.parametrize(("wrapper", "skipped"), [(PLAIN, [0, 1, 1, 1]), (FUSED, [0, 0, 1, 1])])
def test_a_fused_optimizer_is_not_waited_for(tmp_path, wrapper, skipped):
    runner = build(tmp_path, wrapper=wrapper, is_gradient=True)
    watch = Watch()
    runner.register_hook(watch, "LOWEST")
    run(runner)
    assert watch.skipped == skipped
    assert torch.equal(watch.weights[0], watch.weights[1])


@pytest.mark.parametrize("bad", [5, 13])
def test_stop_at_gradients_saves_nothing_after_them(tmp_path, bad):
    runner = build(tmp_path, "stop", bad=bad, wrapper=FUSED, is_gradient=True)
    step = bad // 4 + 1
    with pytest.raises(NonFiniteLossError, match=f"non-finite gradients in step {step}: "):
        runner.train()
    expected = train_by_hand(tmp_path, BATCHES[: step - 1], FUSED)
    assert torch.equal(runner.model.linear.weight, expected)
    assert not list((tmp_path / "work").glob("*.pth"))


def test_accumulated_gradients_that_are_not_finite_leave_out_the_whole_step(tmp_path):
    wrapper = {**FUSED, "accumulative_counts": 2}
    runner = build(tmp_path, bad=9, wrapper=wrapper, is_gradient=True)
    watch = Watch()
    runner.register_hook(watch)
    weight = run(runner)
    assert torch.equal(weight, watch.weights[1]) and not torch.equal(weight, watch.weights[0])
    assert hook_of(runner).skipped == 1


def test_a_loss_scale_that_falls_to_nothing_stops(tmp_path):
    runner = build(tmp_path, "stop", bad=100, is_gradient=True)
    runner.optim_wrapper = runner.build_optim_wrapper(
        dict(PLAIN, type="swin_mm.AmpOptimWrapper", dtype="bfloat16")
    )
    # 2 and 1 may still be the right scale, 0.5 is not.
    runner.optim_wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    weight = runner.model.linear.weight.detach().clone()
    with pytest.raises(NonFiniteLossError, match="non-finite gradients in step 3: "):
        runner.train()
    assert torch.equal(runner.model.linear.weight, weight)


@MODELS.register_module()
class TwoPartsModel(PoisonedModel):
    """Two parts with an optimizer each, of which the second has a bad gradient."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.other = nn.Linear(4, 1)

    def train_step(self, data, optim_wrapper):
        inputs, target = torch.stack(data["inputs"]), torch.stack(data["target"])
        losses = {}
        for name in ("linear", "other"):
            part = getattr(self, name)
            loss = (part(inputs).squeeze(1) - target).square().mean()
            if name == "other" and self.bad in data["index"]:
                loss = loss + (part.weight.sum() * 0).square().sqrt()
            optim_wrapper[name].update_params(loss)
            losses[f"loss_{name}"] = loss.detach()
        return losses


@pytest.mark.parametrize("fused", [False, True])
def test_each_of_several_optimizers_skips_its_own_bad_gradients(tmp_path, fused):
    runner = build(tmp_path, is_gradient=True)
    runner.model = model = TwoPartsModel(bad=5)
    model.linear.load_state_dict(build(tmp_path).model.linear.state_dict())
    watch = Watch()
    runner.register_hook(watch)
    wrappers = {
        name: OptimWrapper(
            torch.optim.SGD(getattr(model, name).parameters(), 0.02, weight_decay=0.01, fused=fused)
        )
        for name in ("linear", "other")
    }
    runner.optim_wrapper = OptimWrapperDict(**wrappers)
    weight = run(runner)
    plain = optimizer_wrapper("SGD", weight_decay=0.01, fused=fused)
    assert torch.equal(weight, train_by_hand(tmp_path, BATCHES, plain))
    assert model.other.weight.isfinite().all()
    assert hook_of(runner).skipped == 1


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


def test_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="action must be 'stop' or 'skip', got 'ignore'"):
        NonFiniteLossHook("ignore")
