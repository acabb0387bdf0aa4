"""Non-maximum suppression of axis-aligned boxes: `nms`, `softnms`, `nms_match`."""

from ctypes import c_float

import numpy as np
import torch
import torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.precision import widen

# How `softnms` lowers the score of a box that overlaps a better one; mmcv's numbering.
NAIVE, LINEAR, GAUSSIAN = 0, 1, 2


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keeps the boxes that overlap no better box by more than a threshold.

    Args:
        boxes: `(N, 4)`, x1, y1, x2, y2 in pixels.
        scores: `(N,)`.
        iou_threshold: a box goes when its IoU with a kept one is greater than this.
        offset: 1 where x2 and y2 are the last pixel inside a box, else 0.

    Returns:
        `(K,)` int64 indices of the kept boxes, best first.
    """
    boxes = widen(boxes)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # mmcv compares in float32, torchvision in float64, where an IoU of float32(0.3) exceeds 0.3.
    threshold = c_float(iou_threshold).value
    return torchvision.ops.nms(boxes, scores.to(boxes.dtype), threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lowers the scores of boxes that overlap better ones, and drops those that fall too low.

    Args:
        boxes: `(N, 4)`, x1, y1, x2, y2 in pixels.
        scores: `(N,)`.
        dets: `(N, 5)`, written: its first K rows receive box and new score, best first.
        iou_threshold: from this IoU on, methods `NAIVE` and `LINEAR` act.
        sigma: width of method `GAUSSIAN`.
        min_score: a box goes when its score falls below this.
        method: `NAIVE`, `LINEAR` or `GAUSSIAN`.
        offset: 1 where x2 and y2 are the last pixel inside a box, else 0.

    Returns:
        `(K,)` int64 indices of the kept boxes, best first.

    Source: `softnms_cpu` in mmcv's `csrc/pytorch/cpu/nms.cpp`. The order of boxes with equal
    scores depends on its moves of dropped boxes, which are repeated here.
    """
    # NumPy: one step per kept box on small arrays, where PyTorch's call overhead would dominate.
    corners = widen(boxes.detach()).cpu().numpy()
    score = widen(scores.detach()).cpu().numpy().astype(corners.dtype)  # a copy: it is lowered
    order = np.arange(len(corners))
    kept = 0
    while kept < len(order):
        rest = order[kept:]
        best = int(score[rest].argmax())
        rest[[0, best]] = rest[[best, 0]]
        kept += 1
        others = rest[1:]
        overlap = _iou(corners[rest[0]], corners[others], offset)
        if method == GAUSSIAN:
            weight = np.exp(-(overlap * overlap) / corners.dtype.type(sigma))
        else:
            lowered = 1 - overlap if method == LINEAR else np.zeros_like(overlap)
            weight = np.where(overlap >= np.float32(iou_threshold), lowered, np.ones_like(overlap))
        score[others] *= weight
        # `not <`, as NaN scores stay in the compiled operator.
        survivors = _close_gaps(others, ~(score[others] < np.float32(min_score)))
        order = np.concatenate((order[:kept], survivors))
    keep = torch.from_numpy(order)
    rows = np.concatenate((corners[order], score[order, None]), axis=1)
    dets[: len(order)] = torch.from_numpy(rows).to(dets)
    return keep.to(boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups every suppressed box with the kept box that suppresses it.

    Args:
        dets: `(N, 5)`, x1, y1, x2, y2 in pixels and score.
        iou_threshold: a box joins a better one's group from this IoU on.

    Returns:
        One list of indices per kept box, best first; within a list the kept box, then the others
        by falling score.
    """
    rows = widen(dets.detach()).cpu()
    rest = rows[:, 4].argsort(descending=True, stable=True).numpy()
    corners = rows[:, :4].numpy()
    groups = []
    while len(rest):
        best, others = rest[0], rest[1:]
        joins = _iou(corners[best], corners[others], offset=0) >= np.float32(iou_threshold)
        groups.append([int(best), *others[joins].tolist()])
        rest = others[~joins]
    return groups


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one box `(4,)` with boxes `(N, 4)`; NaN where both are empty, as in C++."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + offset
    intersection = np.maximum(sides, 0).prod(axis=1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection / (area + areas - intersection)


def _close_gaps(items: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Drops dead items; the gaps they leave, from the front, take living items from the back."""
    size = int(alive.sum())
    closed = items[:size].copy()
    closed[~alive[:size]] = items[size:][alive[size:]][::-1]
    return closed
