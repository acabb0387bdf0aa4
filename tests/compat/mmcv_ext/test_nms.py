"""nms, softnms and nms_match against loops over boxes, through mmcv's own functions."""

import math

import numpy as np
import pytest
import torch
import torchvision
from mmcv.ops import batched_nms, nms, nms_match, soft_nms


def random_boxes(count, seed, whole=False):
    """Boxes that overlap a lot, in a square of 100 pixels, and scores with ties."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 60
    side = torch.rand(count, 2, generator=generator) * 40 + 1
    boxes = torch.cat((corner, corner + side), dim=1)
    scores = (torch.rand(count, generator=generator) * 30).round() / 30
    return (boxes.round() if whole else boxes), scores


def iou(a, b, offset=0):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a, area_b = ((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b))
    return width * height / (area_a + area_b - width * height)


def greedy(boxes, scores, threshold, offset=0):
    """Kept indices, best first, and those each suppresses; `>` as nms has it."""
    rest = sorted(range(len(boxes)), key=lambda i: -scores[i])
    groups = []
    while rest:
        best, *others = rest
        gone = [i for i in others if iou(boxes[best], boxes[i], offset) > threshold]
        groups.append([best, *gone])
        rest = [i for i in others if i not in gone]
    return groups


@pytest.mark.parametrize("offset", [0, 1], ids=["offset0", "offset1"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9])
def test_nms_keeps_what_a_loop_keeps(threshold, offset):
    boxes, scores = random_boxes(150, seed=1)
    expected = [g[0] for g in greedy(boxes.tolist(), scores.tolist(), threshold, offset)]
    dets, keep = nms(boxes, scores, threshold, offset=offset)
    assert keep.tolist() == expected
    assert torch.equal(dets, torch.cat((boxes[keep], scores[keep, None]), dim=1))


def test_nms_without_offset_is_torchvisions():
    boxes, scores = random_boxes(400, seed=2)
    assert torch.equal(nms(boxes, scores, 0.5)[1], torchvision.ops.nms(boxes, scores, 0.5))


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms_keeps_a_box_whose_iou_is_the_threshold_in_float32(threshold):
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10 * threshold, 10]])
    assert nms(boxes, torch.tensor([0.9, 0.8]), threshold)[1].tolist() == [0, 1]


def test_nms_filters_by_score_and_number():
    boxes = torch.tensor([[0.0, 0, 4, 4], [10, 0, 14, 4], [20, 0, 24, 4], [30, 0, 34, 4]])
    scores = torch.tensor([0.2, 0.9, 0.05, 0.5])
    assert nms(boxes, scores, 0.5, score_threshold=0.1)[1].tolist() == [1, 3, 0]
    assert nms(boxes, scores, 0.5, max_num=2)[1].tolist() == [1, 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_nms_takes_other_dtypes(dtype):
    boxes, scores = random_boxes(80, seed=3, whole=True)
    scores = scores.to(dtype)
    expected = [g[0] for g in greedy(boxes.tolist(), scores.tolist(), 0.4)]
    dets, keep = nms(boxes.to(dtype), scores, 0.4)
    assert keep.tolist() == expected
    assert dets.dtype == dtype


def test_nms_takes_half_scores_with_float_boxes():
    boxes, scores = random_boxes(80, seed=4)
    expected = torchvision.ops.nms(boxes, scores.half().float(), 0.5)
    from mmcv.ops.nms import NMSop

    assert torch.equal(NMSop.apply(boxes, scores.half(), 0.5, 0, 0.0, -1), expected)


@pytest.mark.parametrize("offset", [0, 1], ids=["offset0", "offset1"])
def test_nms_of_nothing(offset):
    dets, keep = nms(torch.zeros(0, 4), torch.zeros(0), 0.5, offset=offset)
    assert dets.shape == (0, 5)
    assert keep.shape == (0,) and keep.dtype == torch.int64


def test_batched_nms_treats_each_class_alone():
    boxes, scores = random_boxes(200, seed=5)
    classes = torch.arange(200) % 3
    _, keep = batched_nms(boxes, scores, classes, dict(type="nms", iou_threshold=0.4))
    expected = set()
    for label in range(3):
        index = (classes == label).nonzero().squeeze(1)
        kept = greedy(boxes[index].tolist(), scores[index].tolist(), 0.4)
        expected |= {int(index[g[0]]) for g in kept}
    assert set(keep.tolist()) == expected


def soft_nms_by_swapping(boxes, scores, threshold, sigma, min_score, method, offset):
    """One box after another: the best comes forward, the dropped ones change with the last."""
    pairs = zip(boxes, scores, strict=True)
    rows = [[list(box), score, i] for i, (box, score) in enumerate(pairs)]
    first = 0
    while first < len(rows):
        best = max(range(first, len(rows)), key=lambda i: rows[i][1])
        rows[first], rows[best] = rows[best], rows[first]
        place = first + 1
        while place < len(rows):
            overlap = iou(rows[first][0], rows[place][0], offset)
            if method == "gaussian":
                rows[place][1] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                rows[place][1] *= 1 - overlap if method == "linear" else 0
            if rows[place][1] < min_score:
                rows[place] = rows[-1]
                rows.pop()
            else:
                place += 1
        first += 1
    return [r[1] for r in rows], [r[2] for r in rows]


@pytest.mark.parametrize("offset", [0, 1], ids=["offset0", "offset1"])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("min_score", [0.0, 0.05, 0.4])
def test_soft_nms_scores_and_order(method, min_score, offset):
    boxes, scores = random_boxes(60, seed=6, whole=True)
    # float64, so that the oracle's ties and comparisons are the operator's.
    boxes, scores = boxes.double(), scores.double()
    expected_scores, expected_order = soft_nms_by_swapping(
        boxes.tolist(),
        scores.tolist(),
        float(np.float32(0.3)),
        0.5,
        float(np.float32(min_score)),
        method,
        offset,
    )
    dets, keep = soft_nms(
        boxes,
        scores,
        iou_threshold=0.3,
        sigma=0.5,
        min_score=min_score,
        method=method,
        offset=offset,
    )
    assert keep.tolist() == expected_order
    torch.testing.assert_close(dets[:, 4], torch.tensor(expected_scores, dtype=torch.float64))
    assert torch.equal(dets[:, :4], boxes[keep])


def test_soft_nms_example_of_mmcv():
    boxes = np.array([[4, 3, 5, 3], [4, 3, 5, 4]] + [[3, 1, 3, 1]] * 4, dtype=np.float32)
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.4, 0.0], dtype=np.float32)
    dets, keep = soft_nms(boxes, scores, iou_threshold=0.6, sigma=0.5)
    assert len(dets) == len(keep) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_soft_nms_takes_other_dtypes(dtype):
    boxes, scores = random_boxes(40, seed=7, whole=True)
    scores = scores.to(dtype)
    wide, wide_keep = soft_nms(boxes, scores.float(), method="gaussian")
    dets, keep = soft_nms(boxes.to(dtype), scores, method="gaussian")
    assert torch.equal(keep, wide_keep)
    assert torch.equal(dets, wide.to(dtype))


def test_soft_nms_leaves_its_input_alone():
    boxes, scores = random_boxes(30, seed=8)
    before = scores.clone()
    soft_nms(boxes, scores, method="gaussian")
    assert torch.equal(scores, before)


def test_soft_nms_of_nothing():
    dets, keep = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and keep.shape == (0,)


@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_nms_match_groups_by_the_box_that_suppresses(threshold):
    boxes, scores = random_boxes(60, seed=9)
    scores = torch.linspace(0.1, 1, 60)[torch.randperm(60, generator=torch.manual_seed(9))]
    dets = torch.cat((boxes, scores[:, None]), dim=1)
    matched = nms_match(dets, threshold)
    expected = greedy(boxes.tolist(), scores.tolist(), threshold)
    assert [group.tolist() for group in matched] == expected


def test_nms_match_joins_at_the_threshold():
    dets = torch.tensor([[0, 0, 10, 10, 0.9], [0, 0, 5, 10, 0.8]])
    assert [group.tolist() for group in nms_match(dets, 0.5)] == [[0, 1]]


def test_nms_match_of_nothing():
    assert nms_match(torch.zeros(0, 5), 0.5) == []
