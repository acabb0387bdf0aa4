"""Candidates do the same work: the maps, the parameters and the gradients that are asked for."""

import pytest
import torch
from small_workload import small_workload

from swin_mm.benchmark import step as steps
from swin_mm.benchmark.peers import DIFFERENCES, MissingPeerError
from swin_mm.benchmark.step import (
    Candidate,
    ModuleStep,
    cannot_run,
    check_maps,
    describe_error,
    prepare,
    run_case,
)
from swin_mm.benchmark.workload import multi_scale_sizes, vary

V1 = ("mmdet", "mmseg", "timm", "torchvision", "transformers")
V2 = ("timm", "torchvision", "transformers")


@pytest.mark.parametrize(
    ("library", "version"), [(name, 1) for name in V1] + [(name, 2) for name in V2], ids=str
)
def test_peer_has_the_same_maps_parameters_and_stochastic_depth(library, version):
    work = small_workload(version=version)
    ours, theirs = (ModuleStep(name, work) for name in ("swin_mm", library))
    check_maps(work, theirs.forward(0), 0)
    counts = [sum(p.numel() for p in step.model.parameters()) for step in (ours, theirs)]
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


@pytest.mark.parametrize("library", ["swin_mm", "torchvision"])
def test_training_gives_every_parameter_a_gradient(library):
    step = ModuleStep(library, small_workload(mode="train", batch=4))
    step.run(0)
    assert step.model.training
    parameters = list(step.model.parameters())
    assert all(p.grad is not None for p in parameters)
    before = parameters[0].grad
    step.run(0)
    assert parameters[0].grad is not before  # gradients of steps do not add up


def test_inference_keeps_no_graph_and_its_weights():
    step = ModuleStep("swin_mm", small_workload(dtype="bf16"))
    maps = step.run(0)
    assert next(step.model.parameters()).dtype == torch.float32
    assert not step.model.training
    assert all(torch.isfinite(m).all() and not m.requires_grad for m in maps)


@pytest.mark.parametrize("library", ["swin_mm", "mmdet", "torchvision"])
def test_necks_do_the_same(library):
    step = ModuleStep(library, small_workload(part="neck", mode="train"))
    step.run(0)
    assert all(m.grad is not None for m in step.inputs[0])
    sides = [(32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]
    assert [tuple(m.shape) for m in step.forward(0)] == [(2, 256, *side) for side in sides]


def test_other_maps_are_an_error():
    work = small_workload()
    maps = ModuleStep("swin_mm", work).forward(0)
    with pytest.raises(MissingPeerError, match="does other work: its maps are"):
        check_maps(work, maps[:3], 0)


@pytest.mark.parametrize(
    ("candidate", "changes", "message"),
    [
        (Candidate("mmdet", "eager"), dict(version=2), "mmdet has no Swin V2"),
        (Candidate("mmseg", "eager"), dict(version=2), "mmseg has no Swin V2"),
        (Candidate("timm", "eager"), dict(part="neck"), "timm has no feature pyramid"),
        (Candidate("swin_mm", "graphs"), {}, "need a CUDA device"),
        (Candidate("no_such_library", "eager"), {}, "not installed"),
    ],
    ids=str,
)
def test_what_a_candidate_cannot_do(candidate, changes, message):
    with pytest.raises(MissingPeerError, match=message):
        prepare(candidate, small_workload(**changes))
    assert cannot_run(Candidate("swin_mm", "eager"), small_workload()) is None


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_memory_is_growth_and_what_is_kept(mode, monkeypatch):
    """Parameters, inputs, and in training the gradients of parameters and of maps."""
    monkeypatch.setattr(steps, "measure_growth", lambda run: run() or 1000)
    work = small_workload(mode=mode)
    _, row = prepare(Candidate("swin_mm", "eager"), work)
    expected = 4 * (row["parameters"] + 2 * 3 * 128 * 256) + 1000
    if mode == "train":
        sides = work.map_sizes((128, 256))
        maps = [c * h * w for c, (h, w) in zip(work.channels, sides, strict=True)]
        expected += 4 * (row["parameters"] + 2 * sum(maps))
    assert row["peak_bytes"] == expected


def test_a_case_has_a_row_for_each_candidate():
    candidates = [Candidate("swin_mm", "eager"), Candidate("swin_mm", "graphs")]
    turns = []
    work = small_workload(sizes=((64, 64), (50, 70)))
    case = run_case(work, candidates, 2, lambda: turns.append(1))
    ours, graphs = case["rows"]
    assert len(ours["samples_ms"]) == 2 and ours["times_ours"] == 1
    assert graphs["error"] == "CUDA graphs need a CUDA device"
    assert len(turns) == 2 + 3
    assert case["work"]["embed_dims"] == 16 and case["work"]["device"] == "cpu"


def test_errors_are_one_line():
    assert describe_error(torch.OutOfMemoryError("CUDA out of ...")) == "out of memory"
    assert describe_error(RuntimeError("it broke\nsomewhere")) == "RuntimeError: it broke"
    assert describe_error(MissingPeerError("not installed")) == "not installed"


def test_sizes_of_multi_scale_training():
    sizes = multi_scale_sizes((800, 1344))
    assert (min(sizes), max(sizes), len(sizes)) == ((480, 800), (800, 1344), 11)
    assert sizes == multi_scale_sizes((800, 1344))
    assert all(side % 32 == 0 for size in sizes for side in size)


def test_sweeps_change_one_quantity():
    work = small_workload()
    assert vary(work, "side", 96).sizes == ((96, 96),)
    assert vary(work, "batch", 5).batch == 5
    assert vary(work, "window", 8).window == 8
    assert vary(work, "depth", 18).arch.depths == (1, 2, 18, 1)
