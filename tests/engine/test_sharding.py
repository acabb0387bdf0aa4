"""Models divided among processes train as in one process."""

import math
from types import SimpleNamespace

import pytest
import shard_training
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from shard_training import differences, train, train_divided
from torch import nn
from torch.distributed.fsdp import FSDPModule

from swin_mm.engine import CompileHook, NonFiniteLossHook
from swin_mm.engine.rank_state import gather_gradients, set_gradients
from swin_mm.engine.runner_parts import gather_tensor
from swin_mm.engine.sharding import MIN_PARAMETERS, ShardedModel, ShardHook, list_units
from swin_mm.models.layers import SwinBlock

DECAY = dict(
    constructor="swin_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.5),
    clip_grad=dict(type="value", clip_value=0.01),
)
CASES = {
    "averaged, with LoRA": (2, dict(ema=True, lora=dict(r=2))),
    "checkpointed, partly frozen": (
        4,
        dict(settings=DECAY, frozen_stages=1, with_cp=True, group_size=2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_one_process(case):
    world, settings = CASES[case]
    pytest.importorskip("peft")
    arguments = dict(name="mask_rcnn_swin_t", steps=2, **settings)
    alone, divided = train(**arguments), train_divided(world, **arguments)
    losses, weights = differences(divided, alone)
    assert losses < 1e-5 and weights < 1e-5
    assert divided["own"] < 0.6 * alone["own"]  # both are divided by two


def test_blocks_and_large_layers_are_units_and_what_is_read_is_none():
    cfg = shard_training.load("mask2former_swin_t").model
    with torch.device("meta"):
        model = MODELS.build(cfg)
    names = {module: name for name, module in model.named_modules()}
    units = list_units(model, MIN_PARAMETERS)
    blocks = [module for module in model.modules() if isinstance(module, SwinBlock)]
    assert set(blocks) < set(units) and len(blocks) == 12
    others = {names[unit] for unit in units if unit not in blocks}
    decoder = "panoptic_head.transformer_decoder.layers"
    assert {f"{decoder}.{i}" for i in range(9)} <= others
    assert "backbone.layers.2.downsample.reduction" in others  # 4 * 384 to 768
    for unit in units:
        assert not isinstance(unit, nn.Embedding | nn.ModuleList | nn.Sequential)
        assert not hasattr(unit, "predict")


class Linear(BaseModel):
    """A layer whose gradient is NaN where the input is at 7, its loss is finite."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs, mode):
        loss = self.linear(inputs).square().mean()
        return {"loss": loss + ((inputs - 7).square().sum() * self.linear.weight.sum()).sqrt() * 0}


def make_inputs(step, rank):
    inputs = torch.randn(2, 4, generator=torch.Generator().manual_seed(2 * step + rank))
    return torch.full_like(inputs, 7) if (step, rank) == (1, 1) else inputs.abs()


def start(fused, count=1):
    model = Linear()
    nn.init.constant_(model.linear.weight, 0.5)
    optimizer = dict(type="AdamW", lr=0.01, fused=fused)
    cfg = dict(type="swin_mm.OptimWrapper", optimizer=optimizer, clip_grad=dict(max_norm=0.5))
    wrapper = build_optim_wrapper(model, dict(cfg, accumulative_counts=count))
    return SimpleNamespace(model=model, optim_wrapper=wrapper, hooks=[], iter=0)


def join(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)


def list_norms(runner):
    """The norms of gradients in the log."""
    return runner.optim_wrapper.message_hub.get_scalar("train/grad_norm").data[0].tolist()


def skip_a_step(rank, folder, fused):
    join(rank, folder)
    runner = start(fused)
    runner.logger = SimpleNamespace(warning=lambda text: None)
    model = runner.model
    runner.model = ShardedModel(model)
    guard = NonFiniteLossHook("skip")
    for hook in (ShardHook(), guard):
        hook.before_train(runner)
    runner.model.eval()  # before any step, as where a validation is due at a resume
    if rank == 0:  # it has one image more than the other
        runner.model.val_step({"inputs": make_inputs(0, rank)})
    runner.model.train()
    for runner.iter in range(3):
        batch = {"inputs": make_inputs(runner.iter, rank)}
        outputs = runner.model.train_step(batch, runner.optim_wrapper)
        guard.after_train_iter(runner, runner.iter, outputs=outputs)
    guard.after_train(runner)
    weights = {name: gather_tensor(p.detach()) for name, p in model.named_parameters()}
    torch.save((guard.skipped, weights, list_norms(runner)), folder / f"{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize("fused", [False, True])
def test_a_bad_gradient_in_one_process_leaves_out_the_step_of_all(tmp_path, fused):
    mp.start_processes(skip_a_step, (tmp_path, fused), 2, start_method="fork")
    alone = start(fused, count=2)
    for step in (0, 2):
        for rank in range(2):
            alone.model.train_step({"inputs": make_inputs(step, rank)}, alone.optim_wrapper)
    for rank in range(2):
        skipped, weights, norms = torch.load(tmp_path / f"{rank}.pth")
        assert skipped == 1
        first, bad, last = norms[-3:]
        assert [first, last] == pytest.approx(list_norms(alone)[-2:]) and math.isnan(bad)
        torch.testing.assert_close(weights, dict(alone.model.named_parameters()))


def keep_gradients(rank, folder):
    """Half of an accumulated step, whose gradients are saved and given to a new model."""
    join(rank, folder)
    runners = [start(fused=False, count=2) for _ in range(2)]
    for runner in runners:
        runner.model = ShardedModel(runner.model)
        ShardHook().before_train(runner)
    first, second = runners
    first.model.train_step({"inputs": make_inputs(0, rank)}, first.optim_wrapper)
    gradients = gather_gradients(first)
    set_gradients(second, {name: gather_tensor(value) for name, value in gradients.items()})
    named = second.model.module.named_parameters()
    found = [gradients, {name: parameter.grad for name, parameter in named}]
    whole = [{name: gather_tensor(g) for name, g in one.items()} for one in found]
    torch.save(whole, folder / f"{rank}.pth")
    dist.destroy_process_group()


def test_accumulated_gradients_are_means_that_any_number_of_processes_goes_on_with(tmp_path):
    mp.start_processes(keep_gradients, (tmp_path,), 2, start_method="fork")
    alone = start(fused=False, count=2)
    for rank in range(2):
        losses = alone.model(make_inputs(0, rank), mode="loss")
        (losses["loss"] / 2 / 2).backward()  # of two processes, and of two batches
    wanted = {name: p.grad for name, p in alone.model.named_parameters()}
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pth"):
            torch.testing.assert_close(found, wanted)
    other = start(fused=False, count=2)
    zeros = {name: torch.zeros_like(g) for name, g in wanted.items()}
    set_gradients(other, [{name: 2 * g for name, g in wanted.items()}, zeros])  # of two processes
    found = {name: p.grad for name, p in other.model.named_parameters()}
    torch.testing.assert_close(found, wanted)


def test_what_would_train_apart_or_cannot_be_divided_is_refused():
    runner = start(fused=False)
    runner.model = ShardedModel(runner.model)
    with pytest.raises(ValueError, match="needs swin_mm.ShardHook: train with swin-mm"):
        runner.model.train_step({"inputs": make_inputs(0, 0)}, runner.optim_wrapper)
    runner.hooks = [CompileHook()]
    with pytest.raises(ValueError, match="drop --compile or --shard"):
        ShardHook().before_train(runner)
    with pytest.raises(ValueError, match="must divide the number of processes, 1, got 2"):
        ShardedModel(runner.model.module, group_size=2)


def test_an_older_pytorch_is_refused(monkeypatch):
    model = start(fused=False).model
    monkeypatch.delattr(FSDPModule, "set_reduce_scatter_unused_params")
    with pytest.raises(RuntimeError, match=r"with PyTorch 2.13 or newer, found"):
        ShardedModel(model)
