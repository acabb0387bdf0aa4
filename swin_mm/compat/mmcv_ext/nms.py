"""Non-maximum suppression of axis-aligned boxes: `nms`, `softnms`, `nms_match`."""

from ctypes import c_float

import numpy as np
import torch
import torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

# How `softnms` lowers the score of a box that overlaps a better one; mmcv's numbering.
NAIVE, LINEAR, GAUSSIAN = 0, 1, 2
# Rows of the arrays in which `softnms` moves boxes about; row 4 is the area.
SCORE = 5
BOX_AND_SCORE = [0, 1, 2, 3, SCORE]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices `(K,)` of the boxes that overlap no better box by more than a threshold, best first.

    With an `offset` of 1, x2 and y2 of `boxes` `(N, 4)` are the last pixel inside.
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
    """Lowers the scores of boxes that overlap better ones, and drops those below `min_score`.

    Methods `NAIVE` and `LINEAR` act from `iou_threshold` on, `GAUSSIAN` with the width `sigma`.

    Args:
        dets: `(N, 5)`, written: its first K rows receive box and new score, best first.

    Returns:
        `(K,)` int64 indices of the kept boxes, best first.

    Source: `softnms_cpu` in mmcv's `csrc/pytorch/cpu/nms.cpp`. The order of boxes with equal
    scores depends on its moves of dropped boxes, which are repeated here.
    """
    # NumPy: one step per kept box on small arrays, where PyTorch's call overhead would dominate.
    columns = _columns(boxes, offset)
    score = widen(scores.detach()).cpu().numpy().astype(columns.dtype)
    rows = np.concatenate((columns, score[None]))
    order = np.arange(rows.shape[1])
    kept, size = 0, len(order)
    while kept < size:
        best = kept + rows[SCORE, kept:size].argmax()
        for array in (rows, order):
            array[..., [kept, best]] = array[..., [best, kept]]
        kept += 1
        others = rows[:, kept:size]
        overlap = _iou(rows[:, kept - 1], others, offset)
        if method == GAUSSIAN:
            others[SCORE] *= np.exp(-(overlap * overlap) / rows.dtype.type(sigma))
        else:
            lowered = overlap >= np.float32(iou_threshold)
            others[SCORE] *= np.where(lowered, 1 - overlap if method == LINEAR else 0, 1)
        dropped = others[SCORE] < np.float32(min_score)
        if dropped.any():
            size -= int(dropped.sum())
            _close_gaps(others, dropped)
            _close_gaps(order[kept : kept + len(dropped)], dropped)
    dets[:size] = torch.from_numpy(rows[BOX_AND_SCORE, :size].T).to(dets)
    return torch.from_numpy(order[:size]).to(boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups every box of `dets` `(N, 5)` with the better one that suppresses it, from an IoU on.

    Returns:
        One list of indices per kept box, best first; within a list the kept box, then the others
        by falling score.
    """
    rows = _columns(dets[:, :4], offset=0)
    rest = widen(dets)[:, 4].argsort(descending=True, stable=True).cpu().numpy()
    groups = []
    while len(rest):
        best, others = rest[0], rest[1:]
        joins = _iou(rows[:, best], rows[:, others], offset=0) >= np.float32(iou_threshold)
        groups.append([int(best), *others[joins].tolist()])
        rest = others[~joins]
    return groups


def _columns(boxes: Tensor, offset: int) -> np.ndarray:
    """Boxes `(N, 4)` as contiguous rows x1, y1, x2, y2 and area: `(5, N)`."""
    x1, y1, x2, y2 = widen(boxes.detach()).cpu().numpy().T
    return np.stack((x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)))


def _iou(box: np.ndarray, boxes: np.ndarray, offset: int) -> np.ndarray:
    """IoU of one column of `_columns` with others; NaN where both boxes are empty, as in C++."""
    width = np.minimum(box[2], boxes[2]) - np.maximum(box[0], boxes[0]) + offset
    height = np.minimum(box[3], boxes[3]) - np.maximum(box[1], boxes[1]) + offset
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return intersection / (box[4] + boxes[4] - intersection)


def _close_gaps(items: np.ndarray, dropped: np.ndarray) -> None:
    """Drops items along the last axis, in place: those kept from the back fill gaps in front."""
    size = len(dropped) - int(dropped.sum())
    items[..., :size][..., dropped[:size]] = items[..., size:][..., ~dropped[size:]][..., ::-1]
