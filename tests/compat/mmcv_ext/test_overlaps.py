"""Overlaps of boxes with and without angle: `bbox_overlaps`, `box_iou_rotated`, `nms_rotated`."""

import math

import cv2
import numpy as np
import pytest
import torch
import torchvision
from half_precision import HALVES
from mmcv.ops import bbox_overlaps, box_iou_rotated, nms_rotated


def boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 20, (count, 2), generator=generator)
    side = torch.randint(1, 20, (count, 2), generator=generator)
    return torch.cat((corner, corner + side), dim=1).double()


def test_iou_is_torchvisions():
    expected = torchvision.ops.box_iou(boxes(9, 0), boxes(7, 1))
    torch.testing.assert_close(bbox_overlaps(boxes(9, 0), boxes(7, 1)), expected)


@pytest.mark.parametrize("offset", [0, 1], ids=["offset0", "offset1"])
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_overlap_counts_pixels(mode, offset):
    """Boxes with whole corners are sets of pixels; offset 1 counts the last corner in."""
    first, second = boxes(6, 2), boxes(6, 3)

    def pixels(box):
        x1, y1, x2, y2 = (int(c) for c in box)
        rows, columns = range(y1, y2 + offset), range(x1, x2 + offset)
        return {(y, x) for y in rows for x in columns}

    def overlap(a, b):
        a, b = pixels(a), pixels(b)
        return len(a & b) / len(a | b if mode == "iou" else a)

    expected = torch.tensor([[overlap(a, b) for b in second] for a in first]).double()
    torch.testing.assert_close(bbox_overlaps(first, second, mode, False, offset), expected)
    torch.testing.assert_close(
        bbox_overlaps(first, second, mode, True, offset), expected.diagonal().clone()
    )


@HALVES
def test_overlap_in_half_precision(dtype):
    first, second = boxes(6, 4).to(dtype), boxes(5, 5).to(dtype)
    output = bbox_overlaps(first, second)
    assert output.dtype == dtype
    assert torch.equal(output, bbox_overlaps(first.float(), second.float()).to(dtype))


def test_overlap_of_nothing():
    assert bbox_overlaps(torch.zeros(0, 4), boxes(3, 0).float()).shape == (0, 3)
    assert bbox_overlaps(torch.zeros(0, 4), torch.zeros(0, 4), aligned=True).shape == (0,)


def rotated_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20 + 100
    side = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 20 + 1
    angle = (torch.rand(count, 1, generator=generator, dtype=torch.float64) - 0.5) * 2 * math.pi
    return torch.cat((centre, side, angle), dim=1)


def opencv_overlap(a, b, mode="iou"):
    rectangles = [((r[0], r[1]), (r[2], r[3]), math.degrees(r[4])) for r in (a, b)]
    kind, corners = cv2.rotatedRectangleIntersection(*rectangles)
    shared = 0.0
    if kind != cv2.INTERSECT_NONE:
        shared = cv2.contourArea(cv2.convexHull(corners.astype(np.float32)))
    area_a, area_b = a[2] * a[3], b[2] * b[3]
    return shared / (area_a + area_b - shared if mode == "iou" else area_a)


@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_rotated_overlap_is_opencvs(mode):
    first, second = rotated_boxes(15, 0), rotated_boxes(12, 1)
    expected = torch.tensor(
        [[opencv_overlap(a, b, mode) for b in second.tolist()] for a in first.tolist()]
    ).double()
    # OpenCV computes corners in float32.
    torch.testing.assert_close(box_iou_rotated(first, second, mode), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        box_iou_rotated(first[:12], second, mode, aligned=True),
        expected[:12].diagonal().clone(),
        rtol=1e-3,
        atol=1e-4,
    )


def test_rotated_overlap_when_the_pairs_do_not_fit_at_once(monkeypatch):
    from swin_mm.compat.mmcv_ext import rotated

    expected = box_iou_rotated(rotated_boxes(6, 2), rotated_boxes(7, 3))
    monkeypatch.setattr(rotated, "PAIRS", 10)
    torch.testing.assert_close(box_iou_rotated(rotated_boxes(6, 2), rotated_boxes(7, 3)), expected)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ((5, 5, 4, 2, 0.3), 1.0),
        ((5, 5, 4, 2, 0.3 + math.pi), 1.0),
        ((5, 5, 2, 4, 0.3 + math.pi / 2), 1.0),
        ((5, 5, 2, 1, 0.3), 0.25),
        ((25, 5, 4, 2, 0.3), 0.0),
        ((5, 5, 0, 2, 0.3), 0.0),
    ],
    ids=["same", "half_turn", "sides_swapped", "inside", "apart", "flat"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rotated_overlap_of_boxes_with_common_edges(second, expected, dtype):
    first = torch.tensor([[5, 5, 4, 2, 0.3]], dtype=dtype)
    output = box_iou_rotated(first, torch.tensor([second], dtype=dtype))
    torch.testing.assert_close(output, torch.tensor([[expected]], dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rotated_overlap_of_a_box_with_itself_is_one(dtype):
    """Also when its sides are swapped and it is turned by a right angle, for any box."""
    made = rotated_boxes(500, 8).to(dtype)
    turned = made[:, [0, 1, 3, 2, 4]] + made.new_tensor([0, 0, 0, 0, math.pi / 2])
    for other in (made, turned):
        output = box_iou_rotated(made, other, aligned=True)
        torch.testing.assert_close(output, torch.ones_like(output), rtol=0, atol=1e-5)


def test_rotated_overlap_turns_clockwise_on_the_screen():
    """y points down: a clockwise quarter of a right angle takes the right end down."""
    long = torch.tensor([[0, 0, 10, 0.2, math.pi / 4]])
    lower_right = torch.tensor([[3.0, 3.0, 1, 1, 0]])
    assert box_iou_rotated(long, lower_right).item() > 0
    assert box_iou_rotated(long, lower_right, clockwise=False).item() == 0


@HALVES
def test_rotated_overlap_in_half_precision(dtype):
    first, second = rotated_boxes(5, 4).to(dtype), rotated_boxes(4, 5).to(dtype)
    output = box_iou_rotated(first, second)
    assert output.dtype == dtype
    assert torch.equal(output, box_iou_rotated(first.float(), second.float()).to(dtype))


def test_rotated_overlap_of_nothing():
    assert box_iou_rotated(torch.zeros(0, 5), torch.zeros(3, 5)).shape == (0, 3)


@pytest.mark.parametrize("classes", [None, 2], ids=["one_class", "two_classes"])
def test_nms_rotated_keeps_what_a_loop_keeps(classes):
    """mmcv's compiled operator drops the labels before it compares boxes."""
    made = rotated_boxes(40, 6)
    scores = torch.linspace(0.1, 1, 40)[torch.randperm(40, generator=torch.manual_seed(0))].double()
    labels = None if classes is None else torch.arange(40) % classes
    expected = []
    for i in scores.argsort(descending=True).tolist():
        if all(opencv_overlap(made[j].tolist(), made[i].tolist()) <= 0.3 for j in expected):
            expected.append(i)
    dets, keep = nms_rotated(made, scores, 0.3, labels)
    assert keep.tolist() == expected
    torch.testing.assert_close(dets, torch.cat((made, scores[:, None]), dim=1)[expected])


def test_nms_rotated_of_equal_boxes_at_the_threshold():
    """On the CPU mmcv drops a box whose overlap equals the threshold."""
    boxes = torch.tensor([[10.0, 10.0, 8.0, 4.0, 0.0], [12.0, 10.0, 8.0, 4.0, 0.0]])  # 24 of 40
    scores = torch.tensor([0.5, 0.9])
    iou = box_iou_rotated(boxes[:1], boxes[1:]).item()
    assert iou == pytest.approx(0.6)
    assert nms_rotated(boxes, scores, iou)[1].tolist() == [1]
    assert nms_rotated(boxes, scores, iou + 1e-5)[1].tolist() == [1, 0]
