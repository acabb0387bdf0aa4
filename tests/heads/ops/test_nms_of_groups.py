"""NMS by groups: torchvision's and the Triton kernel's results, and mmcv's over levels."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from mmcv.ops import batched_nms

from swin_mm.heads.ops import nms
from swin_mm.heads.ops.nms import move_groups_apart, nms_sorted, suppress_by_level
from swin_mm.ops import self_test

triton = pytest.importorskip("triton")
from swin_mm.heads.ops.triton_nms import nms as run_kernel  # noqa: E402
from swin_mm.ops.triton import launch  # noqa: E402  (needs Triton)

HAS_GPU = torch.cuda.is_available() and not launch.IS_INTERPRETED
DEVICE = "cuda" if HAS_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if HAS_GPU else []
needs_kernel = pytest.mark.skipif(
    not HAS_GPU and not launch.IS_INTERPRETED, reason="neither a GPU nor Triton's interpreter"
)


def draw_groups(groups, number, size=60.0):
    corner = torch.rand(groups, number, 2) * size
    boxes = torch.cat((corner, corner + 5 + torch.rand(groups, number, 2) * 20), dim=2)
    return boxes, torch.rand(groups, number) > 0.2


def suppress_by_hand(boxes, valid, threshold):
    """The definition, box by box."""
    overlaps = torchvision.ops.box_iou(boxes, boxes)
    kept = []
    for box in valid.nonzero().squeeze(1).tolist():
        if all(overlaps[box, better] <= threshold for better in kept):
            kept.append(box)
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_keeps_what_no_better_one_overlaps(threshold):
    boxes, valid = draw_groups(3, 80)
    keep = nms_sorted(boxes, valid, threshold)
    for group in range(3):
        wanted = suppress_by_hand(boxes[group], valid[group], threshold)
        assert keep[group].nonzero().squeeze(1).tolist() == wanted
    assert 0 < keep.sum() < valid.sum()


def test_an_overlap_of_the_threshold_itself_is_kept():
    """IoU 0.3, for which float32 has a number larger than float64's."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 3, 10]]])
    assert nms_sorted(boxes, torch.ones(1, 2, dtype=torch.bool), 0.3).all()


SHAPES = {"several": (3, 40), "one-group": (1, 70), "power-of-two": (2, 32), "one-box": (2, 1)}
SHAPES |= {"no-group": (0, 5), "no-box": (2, 0)}


@needs_kernel
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # boxes without area
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_kernel_keeps_what_torchvision_does(shape):
    boxes, valid = draw_groups(*shape)
    if shape[1] > 8:
        boxes[:, 3, 2:] = boxes[:, 3, :2]  # without area, and twice
        boxes[:, 4] = boxes[:, 3]
        boxes[:, 6] = boxes[:, 5]
    on_device = run_kernel(boxes.to(DEVICE), valid.to(DEVICE), 0.4)
    assert on_device.dtype == torch.bool
    assert torch.equal(on_device.cpu(), nms_sorted(boxes, valid, 0.4))


@needs_kernel
def test_a_gpu_takes_the_kernel(monkeypatch):
    boxes, valid = draw_groups(2, 20)
    wanted = nms_sorted(boxes, valid, 0.5)
    monkeypatch.setattr(nms, "why_not_kernel", lambda boxes: None)
    monkeypatch.setattr(torchvision.ops, "nms", None)
    assert torch.equal(nms_sorted(boxes, valid, 0.5), wanted)


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus_that_are_not_here():
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    script = Path(__file__).parents[2] / "ops" / "compile_nms.py"
    command = [sys.executable, str(script), "80", "90", "100"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(line[0], line[3]) for line in lines] == [("nms,2048", "0")] * 3 + [
        ("nms,4096", "0")
    ] * 3


class Far(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    device = torch.device("cuda")


REFUSALS = {
    "cpu": (torch.zeros(1, 3, 4), "torchvision is fast on a CPU"),
    "float64": (torch.zeros(1, 3, 4, dtype=torch.float64).as_subclass(Far), "float32, not"),
}


@pytest.mark.parametrize("boxes, reason", REFUSALS.values(), ids=REFUSALS)
def test_what_the_kernel_refuses(boxes, reason):
    assert reason in nms.why_not_kernel(boxes)


@pytest.mark.parametrize("some_count", [False, True], ids=["all", "some"])
def test_levels_as_mmcvs_batched_nms(some_count):
    sizes = [50, 7, 120]
    boxes, valid = draw_groups(2, sum(sizes), size=90.0)
    valid |= not some_count
    scores = torch.rand(2, sum(sizes))
    scores = torch.cat([part.sort(1, descending=True)[0] for part in scores.split(sizes, 1)], 1)
    keep = suppress_by_level(boxes, valid, sizes, 0.5)
    levels = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    for image in range(2):
        rows = valid[image].nonzero().squeeze(1)
        _, kept = batched_nms(
            boxes[image, rows],
            scores[image, rows],
            levels[rows],
            dict(type="nms", iou_threshold=0.5),
        )
        assert keep[image].nonzero().squeeze(1).tolist() == rows[kept].sort()[0].tolist()
    assert 0 < keep.sum() < valid.sum()


def test_moves_groups_apart_as_mmcv():
    boxes, valid = draw_groups(2, 30)
    boxes[0, 3] = 1000.0  # does not count
    valid[0, 3] = False
    groups = torch.arange(30) % 4
    moved = move_groups_apart(boxes, groups, valid)
    for image in range(2):
        largest = boxes[image][valid[image]].max()
        wanted = boxes[image] + (groups.to(boxes) * (largest + torch.tensor(1).to(boxes)))[:, None]
        assert torch.equal(moved[image], wanted)


def fail(*args):
    raise RuntimeError("no such instruction")


@pytest.fixture
def self_tested(monkeypatch):
    """A self-test on this device, whatever it is."""
    monkeypatch.setattr(self_test, "_results", {})
    return partial(nms.why_not_self_tested, torch.device(DEVICE))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (lambda boxes, valid, threshold: valid, "keeps other boxes than torchvision"),
        (fail, "no such instruction"),
    ],
    ids=["wrong", "failing"],
)
def test_a_kernel_that_errs_is_not_used(kernel, reason, self_tested, monkeypatch, caplog):
    monkeypatch.setattr("swin_mm.heads.ops.triton_nms.nms", kernel)
    assert reason in self_tested()
    assert reason in caplog.text and "NMS by torchvision" in caplog.text


@needs_kernel
def test_the_kernel_is_used_where_it_keeps_what_torchvision_keeps(self_tested, monkeypatch, caplog):
    monkeypatch.setattr(nms, "SELF_TEST_BOXES", 100)  # a kernel interpreted is slow
    assert self_tested() is None and not caplog.text
    assert [*self_test._results.values()] == [None]
