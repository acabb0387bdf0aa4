"""The profile of whole training steps: parts, operators, and the files of the command."""

import json
from itertools import repeat
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.autograd import DeviceType

from swin_mm.benchmark import profile
from swin_mm.benchmark.profile import describe_gpu, exclusive_times, mark_parts
from swin_mm.benchmark.whole import build_model, make_batch
from swin_mm.cli.config import load_config
from swin_mm.cli.main import run_command

NARROW = {
    "model.backbone.embed_dims": 8,
    "model.backbone.depths": (1, 1, 1, 1),
    "model.backbone.num_heads": (1, 1, 2, 2),
}
HEADS = {
    "mask_rcnn_swin_mini_shapes": ["neck", "rpn_head", "rpn_head candidates", "roi_head"],
    "upernet_swin_mini_shapes": ["decode_head", "auxiliary_head"],
}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(profile, "PROFILED_STEPS", 1)


def small_config(name: str) -> Config:
    cfg = load_config(name, NARROW)
    in_channels = [8, 16, 32, 64]
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = in_channels
    else:
        cfg.model.decode_head.in_channels = in_channels
        cfg.model.auxiliary_head.in_channels = in_channels[cfg.model.auxiliary_head.in_index]
    return cfg


@pytest.mark.parametrize("name", HEADS)
def test_parts_of_a_step(name, tmp_path):
    cfg = small_config(name)
    model = build_model(cfg, torch.device("cpu")).train()
    weight = model.backbone.patch_embed.proj.weight
    before = weight.detach().clone()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batches = repeat(make_batch(cfg, 2, (64, 96)))
    ticks = iter([10.0, 10.5])
    found, operators = profile.profile_steps(
        model, wrapper, batches, 2, tmp_path / "new/trace.json.gz", clock=lambda: next(ticks)
    )
    expected = ["data", "transfer", "preprocess", "backbone", *HEADS[name]]
    assert list(found["parts_ms"]) == [*expected, "other", "backward", "optimizer"]
    assert all(value > 0 for value in found["parts_ms"].values())
    assert (found["step_ms"], found["images_per_second"]) == (250, 8)
    assert "gpu_busy" not in found
    assert "aten::" in operators and "Self CPU" in operators
    assert (tmp_path / "new/trace.json.gz").stat().st_size > 0
    assert not torch.equal(weight, before)


def event(name, start, end, parent=None, device=DeviceType.CPU):
    span = SimpleNamespace(elapsed_us=lambda: (end - start) * 1e3)
    return SimpleNamespace(name=name, time_range=span, cpu_parent=parent, device_type=device)


def test_a_part_does_not_count_the_parts_that_it_calls():
    outer = event("part: outer", 0, 100)
    operator = event("aten::mm", 10, 60, outer)
    inner = event("part: inner", 20, 50, operator)
    again = event("part: inner", 30, 45, inner)  # a loss that calls its own forward
    other = event("part: outer", 200, 207)
    on_gpu = event("part: inner", 0, 1000, device=DeviceType.CUDA)
    found = exclusive_times([outer, operator, inner, again, other, on_gpu])
    assert found == pytest.approx({"outer": 100 - 30 + 7, "inner": 30})


def test_what_a_gpu_did(monkeypatch):
    monkeypatch.setattr(profile, "PROFILED_STEPS", 2)

    def average(key, count, device_us=0.0):
        return SimpleNamespace(key=key, count=count, self_device_time_total=device_us)

    averages = [
        average("gemm", 8, 30_000.0),
        average("part: backbone", 2, 30_000.0),
        average("cudaLaunchKernel", 80),
        average("cudaStreamSynchronize", 6),
        average("cudaDeviceSynchronize", 99),
    ]
    found = describe_gpu(averages, step_ms=20.0)
    assert found == {"gpu_busy": 0.75, "kernel_launches": 40, "gpu_waits": 3}


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x)

    def loss(self, x):
        return self(x).square().mean()


class Detector(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.head = Head()
        self.others = nn.ModuleList([Head(), Head()])

    def forward(self, inputs, mode="loss"):
        x = self.backbone(inputs)
        losses = [head.loss(x) for head in (self.head, *self.others)]
        return {f"loss_{i}": loss for i, loss in enumerate(losses)}


def test_every_part_is_marked_and_nothing_is_left_afterwards():
    model = Detector()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    waits = []
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler,
        mark_parts(model, wrapper, lambda: waits.append(1)),
    ):
        model.train_step({"inputs": torch.ones(4, 3)}, wrapper)
    counts = {e.key: e.count for e in profiler.key_averages() if e.key.startswith("part: ")}
    assert counts == {
        "part: preprocess": 1,
        "part: transfer": 1,
        "part: backbone": 1,
        "part: head": 2,  # its loss, which calls its forward
        "part: others": 4,
        "part: backward": 1,
        "part: optimizer": 2,  # the step, and gradients set to zero
    }
    # `cast_data` calls itself for the dict's tensor, which the profiler joins to one range.
    assert len(waits) == 2 * (sum(counts.values()) + 1)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert not {"step", "backward", "zero_grad"} & vars(wrapper).keys()


def test_command_profiles_the_data_of_a_config(tmp_path, monkeypatch, capsys, tiny_shapes):
    monkeypatch.chdir(tmp_path)
    cfg = small_config("mask_rcnn_swin_mini_shapes")
    cfg.train_dataloader.dataset.data_root = f"{tiny_shapes}/"
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.dump(tmp_path / "small.py")
    argv = ["--config", "small.py", "--profile", "--rounds", "1", "--out", "found"]
    assert run_command("benchmark", [*argv, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "swin_mm: small, train on its own data\n" in text
    assert "kernel_launches: not measured on a CPU\n" in text
    assert "rpn_head" in text and "aten::" in text
    content = json.loads((tmp_path / "found/profile.json").read_text())
    assert content["command"].startswith("swin-mm benchmark --config small.py --profile")
    assert {"data", "backbone", "backward"} < content["parts_ms"].keys()
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert names == {"profile.json", "profile.png", "operators.txt", "trace.json.gz"}
