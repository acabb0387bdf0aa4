"""Assignment of all images at once, against mmdet's assigner image by image."""

import pytest
import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from swin_mm.heads.ops import assign as module
from swin_mm.heads.ops.assign import pad_boxes, pairwise_iou

GRID = 24  # pixels; small whole numbers, so that equal overlaps are many


def draw_boxes(*shape):
    corner = torch.randint(0, GRID, (*shape, 2)).float()
    return torch.cat((corner, corner + torch.randint(1, 12, (*shape, 2))), dim=-1)


def assign(boxes, gts, present, usable=None, **settings):
    return module.assign(MaxIoUAssigner(**settings), boxes, gts, present, usable)


def assign_one_by_one(boxes, gts, usable, **settings):
    """By mmdet: -1 where a box does not count."""
    assigner = MaxIoUAssigner(**settings)
    assigned = torch.full(boxes.shape[:2], -1)
    for image, gt_boxes in enumerate(gts):
        rows = usable[image]
        found = assigner.assign(
            InstanceData(priors=boxes[image, rows]),
            InstanceData(bboxes=gt_boxes, labels=torch.zeros(len(gt_boxes), dtype=torch.long)),
        )
        assigned[image, rows] = found.gt_inds
    return assigned


def assert_as_mmdet(boxes, gts, usable, **settings):
    padded, present = pad_boxes(gts)
    assigned = assign(boxes, padded, present, usable, **settings)
    every = torch.ones(boxes.shape[:2], dtype=torch.bool)
    wanted = assign_one_by_one(boxes, gts, every if usable is None else usable, **settings)
    assert assigned.dtype == torch.int64
    assert torch.equal(assigned, wanted)
    return assigned


RPN = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
SETTINGS = {
    "rpn": RPN,
    "roi": dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False),
    "negatives-bounded-below": dict(pos_iou_thr=0.6, neg_iou_thr=(0.1, 0.4), min_pos_iou=0.2),
    "first-of-the-best": dict(RPN, gt_max_assign_all=False),
    "first-of-the-best-at-any-overlap": dict(RPN, min_pos_iou=0.0, gt_max_assign_all=False),
    "low-quality-at-any-overlap": dict(RPN, min_pos_iou=0.0),
}


@pytest.mark.parametrize("max_pairs", [1, 400, 10**6], ids=["one-by-one", "chunks", "in-one-go"])
@pytest.mark.parametrize("some_count", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("name", SETTINGS)
def test_assigns_as_mmdet(name, some_count, max_pairs, monkeypatch):
    monkeypatch.setitem(module.MAX_PAIRS, "cpu", max_pairs)
    kinds = set()
    for counts in ([5, 0, 1, 9], [0, 0, 0, 0], [3, 7, 2, 0]):
        gts = [draw_boxes(count) for count in counts]
        boxes = draw_boxes(4, 90)
        boxes[:, 40:44, 2:] = boxes[:, 40:44, :2]  # without area
        usable = torch.rand(4, 90) > 0.3 if some_count else None
        assigned = assert_as_mmdet(boxes, gts, usable, **SETTINGS[name])
        kinds |= set(assigned.clamp(max=1).unique().tolist())
    assert kinds >= ({0, 1} if name == "roi" else {-1, 0, 1})


def test_the_same_boxes_for_all_images():
    boxes = draw_boxes(1, 60)
    gts = [draw_boxes(4), draw_boxes(2)]
    padded, present = pad_boxes(gts)
    once = assign(boxes, padded, present, **RPN)
    assert torch.equal(once, assign(boxes.expand(2, -1, -1), padded, present, **RPN))


@pytest.mark.parametrize("max_pairs", [1, 10**6], ids=["one-by-one", "in-one-go"])
def test_the_first_wins_ties_and_the_last_low_quality_match(max_pairs, monkeypatch):
    """By hand: all ground truths are the same box, which the first box is and the second half of.

    A box with an IoU of 1 belongs to the first of them; then each claims it, the last in the end.
    """
    monkeypatch.setitem(module.MAX_PAIRS, "cpu", max_pairs)
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 5, 10], [50, 50, 60, 60]]]).float()
    gts, present = pad_boxes([boxes[0, [0, 0, 0]]])
    settings = dict(pos_iou_thr=0.7, neg_iou_thr=0.3)
    assigned = assign(boxes, gts, present, match_low_quality=False, **settings)
    assert assigned.tolist() == [[1, -1, 0]]
    assigned = assign(boxes, gts, present, min_pos_iou=0.3, **settings)
    assert assigned.tolist() == [[3, -1, 0]]


def test_no_image_has_a_box():
    gts, present = pad_boxes([draw_boxes(3), draw_boxes(1)])
    assert assign(torch.empty(2, 0, 4), gts, present, **RPN).shape == (2, 0)


def test_overlaps_are_mmdets_to_the_last_bit():
    gts, boxes = torch.rand(2, 7, 4) * 900, torch.rand(2, 300, 4) * 900  # some inside out
    assert torch.equal(pairwise_iou(gts, boxes), bbox_overlaps(gts, boxes))


def test_pads_boxes_and_labels():
    boxes, present = pad_boxes([torch.ones(1, 4), torch.ones(0, 4), torch.ones(3, 4)])
    assert boxes.shape == (3, 3, 4)
    assert boxes[:, :, 0].tolist() == present.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 1]]
    labels, _ = pad_boxes([torch.tensor([5]), torch.tensor([6, 7])])
    assert labels.tolist() == [[5, 0], [6, 7]]


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_memory_does_not_grow_with_ground_truths(monkeypatch):
    monkeypatch.setitem(module.MAX_PAIRS, "cpu", 4000)
    gts, present = pad_boxes([draw_boxes(60), draw_boxes(3)])
    with LargestTensor() as largest:
        assign(draw_boxes(1, 500), gts, present, **RPN)
    assert largest.elements == 4000  # of 60,000 pairs; coordinates of the boxes are 2,000
