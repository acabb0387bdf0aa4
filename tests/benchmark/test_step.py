"""Candidates do the same work: the maps, the parameters and the gradients that are asked for."""

import pytest
import torch
from small_work import small_work

from swin_mm.benchmark.backbones import DIFFERENCES, MissingPeerError, check_maps
from swin_mm.benchmark.step import Candidate, ModuleStep, prepare, refuse
from swin_mm.benchmark.work import changing_sizes, vary

V1 = ("mmdet", "mmseg", "timm", "torchvision", "transformers")
V2 = ("timm", "torchvision", "transformers")


@pytest.mark.parametrize(
    ("library", "version"),
    [(name, 1) for name in V1] + [(name, 2) for name in V2],
    ids=lambda value: str(value),
)
def test_peer_has_the_same_maps_parameters_and_stochastic_depth(library, version):
    work = small_work(version=version)
    ours, theirs = (ModuleStep(name, work, is_compiled=False) for name in ("swin_mm", library))
    check_maps(work, theirs.forward(0), work.sizes[0])
    counts = [sum(p.numel() for p in step.parameters) for step in (ours, theirs)]
    # V2: some keep a bias of the key that is always zero.
    assert counts[1] == pytest.approx(counts[0], rel=0.01 if version == 2 else 0)
    assert drop_rates(theirs.model) == pytest.approx(drop_rates(ours.model))
    assert (library, version) in DIFFERENCES


def drop_rates(model):
    """Those of all blocks but the first, once each."""
    kinds = ("DropPath", "StochasticDepth", "SwinDropPath", "Swinv2DropPath")
    modules = [module for module in model.modules() if type(module).__name__ in kinds]
    rates = [m.p if hasattr(m, "p") else m.drop_prob for m in modules]
    return sorted({round(rate, 6) for rate in rates if rate})


def test_the_backend_of_attention_is_ours_alone():
    work = small_work(attn_backend="sdpa")
    ours, theirs = (ModuleStep(name, work, is_compiled=False) for name in ("swin_mm", "mmdet"))
    assert ours.model.layers[0].blocks[0].attn.attn_backend == "sdpa"
    assert not hasattr(theirs.model, "attn_backend")


@pytest.mark.parametrize("library", ["swin_mm", "torchvision"])
def test_training_gives_every_parameter_a_gradient(library):
    work = small_work(mode="train", batch=4)
    step = ModuleStep(library, work, is_compiled=False)
    step.run(0)
    assert step.model.training
    assert all(p.grad is not None for p in step.parameters)
    before = step.parameters[0].grad
    step.run(0)
    assert step.parameters[0].grad is not before  # gradients of steps do not add up


def test_inference_keeps_no_graph():
    step = ModuleStep("swin_mm", small_work(), is_compiled=False)
    assert not step.model.training
    assert not any(m.requires_grad for m in step.run(0))


@pytest.mark.parametrize("casts_weights", [False, True])
def test_dtype_of_inference(casts_weights):
    work = small_work(dtype="bf16", casts_weights=casts_weights)
    step = ModuleStep("swin_mm", work, is_compiled=False)
    assert step.parameters[0].dtype == (torch.bfloat16 if casts_weights else torch.float32)
    assert all(torch.isfinite(m).all() for m in step.run(0))


@pytest.mark.parametrize("library", ["swin_mm", "mmdet", "torchvision"])
def test_necks_do_the_same(library):
    work = small_work(part="neck", mode="train")
    step = ModuleStep(library, work, is_compiled=False)
    step.run(0)
    assert all(m.grad is not None for m in step.inputs[0])
    shapes = [tuple(m.shape) for m in step.forward(0)]
    sides = [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]
    assert shapes == [(2, 256, *side) for side in sides]


def test_other_work_is_refused():
    work = small_work()
    maps = ModuleStep("swin_mm", work, is_compiled=False).forward(0)
    with pytest.raises(MissingPeerError, match="does other work: its maps are"):
        check_maps(work, maps[:3], work.sizes[0])


@pytest.mark.parametrize(
    ("library", "changes", "message"),
    [
        ("mmdet", dict(version=2), "mmdet has no Swin V2"),
        ("mmseg", dict(version=2), "mmseg has no Swin V2"),
        ("timm", dict(part="neck"), "timm has no feature pyramid"),
    ],
    ids=["mmdet V2", "mmseg V2", "timm neck"],
)
def test_what_a_library_lacks_is_told(library, changes, message):
    with pytest.raises(MissingPeerError, match=message):
        prepare(Candidate(library, "eager"), small_work(**changes))


@pytest.mark.parametrize(
    ("device", "changes", "message"),
    [
        ("cpu", {}, "need a CUDA device"),
        ("cuda", dict(mode="train"), "are for inference"),
        ("cuda", dict(part="config"), "waits for its device"),
        ("cuda", {}, None),
    ],
    ids=["cpu", "train", "config", "fits"],
)
def test_what_graphs_cannot_do(device, changes, message):
    work = small_work(device=torch.device(device), **changes)
    reason = refuse(Candidate("swin_mm", "graphs"), work)
    assert reason is None if message is None else message in reason
    assert refuse(Candidate("swin_mm", "compile"), work) is None


def test_prepared_candidate():
    ready = prepare(Candidate("swin_mm", "eager"), small_work(sizes=((64, 64), (50, 70))))
    assert ready.runner.num_inputs == 2
    assert [m.shape[2:] for m in ready.runner.run(1)][0] == (13, 18)


def test_changing_sizes_are_those_of_multi_scale_training():
    sizes = changing_sizes((800, 1344))
    assert sorted(sizes)[0] == (480, 800)
    assert sorted(sizes)[-1] == (800, 1344)
    assert len(sizes) == 11
    assert sizes == changing_sizes((800, 1344))
    assert all(side % 32 == 0 for size in sizes for side in size)


def test_sweeps_change_one_quantity():
    work = small_work()
    assert vary(work, "side", 96).sizes == ((96, 96),)
    assert vary(work, "batch", 5).batch == 5
    assert vary(work, "window", 8).window == 8
    assert vary(work, "depth", 18).depths == (1, 2, 18, 1)
