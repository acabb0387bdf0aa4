"""Counts against hand calculations and PyTorch's counter."""

import pytest
import torch
from small_work import small_work
from torch.utils.flop_counter import FlopCounterMode

from swin_mm.benchmark.floor import (
    DeviceSpeed,
    Group,
    count,
    floor_seconds,
    measure_device,
)
from swin_mm.benchmark.step import ModuleStep, count_parameters
from swin_mm.benchmark.work import Work


def swin_tiny(**changes) -> Work:
    return small_work(
        **{
            **dict(
                embed_dims=96,
                depths=(2, 2, 6, 2),
                num_heads=(3, 6, 12, 24),
                window=7,
                sizes=((800, 1344),),
                batch=1,
                dtype="bf16",
            ),
            **changes,
        }
    )


def named(groups, name):
    return [g for g in groups if g.name == name]


@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize(("part", "version"), [("backbone", 1), ("backbone", 2), ("neck", 1)])
def test_operations_are_those_that_pytorch_counts(part, version, mode):
    work = small_work(part=part, version=version, mode=mode)
    step = ModuleStep("swin_mm", work, is_compiled=False)
    for module in step.model.modules():
        if hasattr(module, "attn_backend"):
            module.attn_backend = "reference"  # of which the counter knows every product
    with FlopCounterMode(display=False) as counter:
        step.run(0)
    # In backward, sums over tokens may be written as products with ones, which are no work.
    wanted = pytest.approx(counter.get_total_flops(), rel=0.005 if mode == "train" else 0)
    assert sum(g.operations for g in count(work)) == wanted


@pytest.mark.parametrize(("part", "version"), [("backbone", 1), ("backbone", 2), ("neck", 1)])
def test_every_parameter_is_read_once(part, version):
    work = small_work(part=part, version=version)
    model = ModuleStep("swin_mm", work, is_compiled=False).model
    table = "relative_position_bias_table"  # left out
    wanted = sum(p.numel() for name, p in model.named_parameters() if not name.endswith(table))
    half = small_work(part=part, version=version, dtype="bf16", casts_weights=True)
    mixed = small_work(part=part, version=version, dtype="bf16")
    # The two differ in nothing but two bytes of each parameter.
    read = sum(g.bytes for g in count(mixed)) - sum(g.bytes for g in count(half))
    assert read == 2 * wanted


def test_bytes_of_a_block_by_hand():
    """Swin-T, stage 1 of 800x1344: 200x336 tokens of 96 channels in two bytes."""
    plane = 200 * 336 * 96 * 2
    groups = count(swin_tiny(mode="train"))
    attention, backward = named(groups, "attention")[0], named(groups, "attention, backward")[0]
    assert attention.bytes == 4 * plane
    assert backward.bytes == 7 * plane
    assert attention.operations == 4 * 200 * 336 * 96 * 49
    linear = 4 * (3 * 96 * 96 + 3 * 96 + 2 * 96)  # weight, bias and norm in float32
    qkv = named(groups, "query, key, value")[0]
    qkv_back = named(groups, "query, key, value, backward")[0]
    assert qkv.bytes == 4 * plane + linear
    assert qkv_back.bytes == 6 * plane + 2 * linear
    names = ("query, key, value", "attention", "projection", "fc1", "fc2")
    block = [named(groups, name)[0] for name in names]
    parameters = 4 * (12 * 96**2 + 13 * 96)  # 9 C biases, 4 C of norms
    assert sum(g.bytes for g in block) == 22 * plane + parameters
    backward = [named(groups, f"{name}, backward")[0] for name in names]
    assert sum(g.bytes for g in backward) == 32 * plane + 2 * parameters


def test_swin_tiny_is_of_known_size():
    """193 GFLOP and 1.35 GB, an image of 800x1344, forward; parameters and ends come on top."""
    groups = count(swin_tiny())
    assert sum(g.operations for g in groups) == pytest.approx(193e9, rel=0.01)
    assert sum(g.bytes for g in groups) == pytest.approx(1.35e9, rel=0.2)


def test_changing_sizes_cost_their_mean():
    sizes = ((64, 96), (128, 80))
    each = [sum(g.bytes for g in count(small_work(sizes=(size,)))) for size in sizes]
    assert sum(g.bytes for g in count(small_work(sizes=sizes))) == pytest.approx(sum(each) / 2)


def test_half_precision_halves_activations():
    full, half = (count(small_work(dtype=dtype)) for dtype in ("fp32", "fp16"))
    ratios = {h.bytes / f.bytes for f, h in zip(full, half, strict=True) if f.name == "attention"}
    assert ratios == {0.5}


def test_each_group_takes_the_longer_of_the_two():
    groups = [Group("a", operations=10, bytes=1), Group("b", operations=1, bytes=6)]
    assert floor_seconds(groups, DeviceSpeed(bandwidth=2, rate=5)) == 2 + 3


def test_whole_model_is_refused():
    with pytest.raises(ValueError, match="operations of a whole model are not counted"):
        count(small_work(part="config"))


def test_device_is_measured(monkeypatch):
    """2 x 2000 bytes and 2 x 10^3 operations, in the best of times: half a second."""
    from swin_mm.benchmark import floor

    monkeypatch.setitem(floor.COPY_BYTES, "cpu", 2000)
    monkeypatch.setitem(floor.MATMUL_SIDE, "cpu", 10)
    times = iter([0.0, 0.75, 1.0, 1.5, 2.0, 3.0] * 8)
    monkeypatch.setattr(floor, "REPEATS", 3)
    monkeypatch.setattr(floor.time, "perf_counter", lambda: next(times))
    assert measure_device(torch.device("cpu"), torch.float32) == DeviceSpeed(8000.0, 4000.0)


def test_parameters_are_counted():
    assert count_parameters(torch.nn.Linear(3, 5)) == 20
