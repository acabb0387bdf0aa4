"""Boxes with an angle: `box_iou_rotated`, `nms_rotated`."""

from ctypes import c_float

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.bbox import IOU
from swin_mm.compat.mmcv_ext.tensors import widen

# Pairs of boxes compared at a time; each needs about 4 KiB.
PAIRS = 1 << 15
# How far outside a box, as a fraction of its side, a corner of the other still counts as inside:
# corners that coincide must not be lost to rounding. For this float32 would be too coarse: of boxes
# compared with themselves, sides swapped and turned by a right angle, it gets one in ten wrong.
TOLERANCE = 1e-9


def box_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Overlap of every rotated box of one set with every one of another, or of pairs.

    Args:
        boxes1: `(N, 5)`, centre x and y, width and height in pixels, clockwise angle in radians.
        boxes2: `(M, 5)`; `M == N` when `aligned`.
        ious: `(N * M,)`, row by row, or `(N,)` when `aligned`, written.
        mode_flag: `IOU` or `IOF`.
        aligned: Whether to compare row with row only.
    """
    first, second = boxes1.double(), boxes2.double()
    if not aligned:
        first, second = (
            first.repeat_interleave(len(boxes2), dim=0),
            second.repeat(len(boxes1), 1),
        )
    for start in range(0, len(first), PAIRS):
        part = slice(start, start + PAIRS)
        ious[part] = _overlap(first[part], second[part], mode_flag).to(ious.dtype)


def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Indices `(K,)` of the rotated boxes that overlap no better box by more than a threshold.

    `order` `(N,)` has the indices by falling score, and `dets_sorted` is `dets[order]`; other
    tensors are unused. On the CPU a box goes also when its IoU equals the threshold. The compiled
    operator leaves the label out of the comparison where `multi_label`, too: boxes compete across
    labels. Callers that want them apart move them apart, as `batched_nms` does.
    """
    boxes, threshold = widen(dets_sorted), c_float(iou_threshold).value
    kept = []
    rest = torch.arange(len(boxes), device=boxes.device)
    while len(rest):
        best, others = rest[0], rest[1:]
        kept.append(best)
        overlap = boxes.new_zeros(len(others))
        box_iou_rotated(boxes[best, None, :5], boxes[others, :5], overlap, IOU, aligned=False)
        goes = overlap >= threshold if boxes.device.type == "cpu" else overlap > threshold
        rest = others[~goes]
    return order[torch.stack(kept)] if kept else order.new_empty(0)


def _overlap(first: Tensor, second: Tensor, mode: int) -> Tensor:
    """IoU or IoF of pairs of boxes `(P, 5)`, `(P,)`; 0 where a box has no area."""
    # Around the first box's centre, so that distant boxes keep their digits.
    centre = first[:, :2]
    corners1, corners2 = _corners(first, centre), _corners(second, centre)
    points, valid = _intersection_points(corners1, corners2)
    area1, area2 = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    intersection = _convex_area(points, valid)
    base = area1 + area2 - intersection if mode == IOU else area1
    empty = torch.minimum(area1, area2) < 1e-14
    return torch.where(empty, torch.zeros_like(base), intersection / base)


def _corners(boxes: Tensor, origin: Tensor) -> Tensor:
    """Corners in turning order, `(P, 4, 2)`, relative to `origin` `(P, 2)`."""
    cosine, sine = boxes[:, 4].cos(), boxes[:, 4].sin()
    across = boxes[:, 2:3] / 2 * torch.stack((cosine, sine), dim=1)  # half the width, as a vector
    down = boxes[:, 3:4] / 2 * torch.stack((-sine, cosine), dim=1)
    centre = boxes[:, :2] - origin
    return torch.stack(
        (
            centre - across - down,
            centre + across - down,
            centre + across + down,
            centre - across + down,
        ),
        dim=1,
    )


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _intersection_points(corners1: Tensor, corners2: Tensor) -> tuple[Tensor, Tensor]:
    """Points that span the intersection of two boxes: `(P, 24, 2)`, and which exist `(P, 24)`."""
    edges1, edges2 = (c.roll(-1, dims=1) - c for c in (corners1, corners2))
    # Edge i of the first box against edge j of the second, (P, 4, 4).
    turn = _cross(edges1[:, :, None], edges2[:, None])
    parallel = turn.abs() <= 1e-14
    gap = corners2[:, None] - corners1[:, :, None]
    divisor = turn.masked_fill(parallel, 1)
    along1 = _cross(gap, edges2[:, None]) / divisor
    along2 = _cross(gap, edges1[:, :, None]) / divisor
    crosses = ~parallel & (along1 >= 0) & (along1 <= 1) & (along2 >= 0) & (along2 <= 1)
    crossings = corners1[:, :, None] + along1[..., None] * edges1[:, :, None]
    points = torch.cat((crossings.flatten(1, 2), corners1, corners2), dim=1)
    valid = torch.cat(
        (crosses.flatten(1), _inside(corners1, corners2), _inside(corners2, corners1)), dim=1
    )
    return points, valid


def _inside(points: Tensor, corners: Tensor) -> Tensor:
    """Whether points `(P, 4, 2)` lie in the boxes with these corners `(P, 4, 2)`."""
    inside = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    for neighbour in (1, 3):
        side = corners[:, neighbour] - corners[:, 0]
        along = ((points - corners[:, :1]) * side[:, None]).sum(-1)
        length = side.square().sum(-1, keepdim=True)
        inside &= (along >= -TOLERANCE * length) & (along <= (1 + TOLERANCE) * length)
    return inside


def _convex_area(points: Tensor, valid: Tensor) -> Tensor:
    """Area of the convex polygons with these points, in any order, as corners, `(P,)`."""
    count = valid.sum(dim=1)
    weight = valid.to(points.dtype).unsqueeze(-1)
    middle = (points * weight).sum(1, keepdim=True) / count.clamp(min=1)[:, None, None]
    around = (points - middle) * weight  # points that do not exist fall on the middle
    angle = torch.atan2(around[..., 1], around[..., 0])
    # They stand last in turning order, where a stay at the first corner adds no area.
    turning = angle.masked_fill(~valid, float("inf")).argsort(dim=1)
    around = around.gather(1, turning[..., None].expand_as(around))
    exists = valid.gather(1, turning)
    around = torch.where(exists.unsqueeze(-1), around, around[:, :1])
    area = _cross(around, around.roll(-1, dims=1)).sum(dim=1).abs() / 2
    return torch.where(count > 2, area, torch.zeros_like(area))
