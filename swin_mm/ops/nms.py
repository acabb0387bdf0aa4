"""Non-maximum suppression of many groups of boxes: of images times levels, or times classes."""

from ctypes import c_float

import torch
import torchvision
from torch import Tensor


def nms_sorted(boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Keeps the boxes of each group that overlap no better one by more than a threshold.

    Args:
        boxes: `(G, N, 4)`, x1, y1, x2, y2 in pixels; in each group by falling score.
        valid: `(G, N)` bool; others are not kept and suppress nothing.
        iou_threshold: A box goes when its IoU with a kept one is greater than this.

    Returns:
        `(G, N)` bool.
    """
    keep = torch.zeros_like(valid)
    # mmcv compares in float32, torchvision in float64, where an IoU of float32(0.3) exceeds 0.3.
    threshold = c_float(iou_threshold).value
    for group, candidates in enumerate(valid):
        index = candidates.nonzero().squeeze(1)
        order = torch.arange(len(index), 0, -1, dtype=boxes.dtype, device=boxes.device)
        kept = torchvision.ops.nms(boxes[group, index], order, threshold)
        keep[group, index[kept]] = True
    return keep


def move_groups_apart(boxes: Tensor, groups: Tensor, valid: Tensor) -> Tensor:
    """Moves the boxes of each group of an image by a multiple of more than its largest coordinate.

    `nms_sorted` needs no such distance. It rounds coordinates in float32, and mmcv's `batched_nms`
    decides by what is left, so that a box on the edge of the threshold is kept or not as there.

    Args:
        boxes: `(B, N, 4)`, x1, y1, x2, y2 in pixels.
        groups: `(B, N)` or `(N,)`, number of the group, such as level or class.
        valid: `(B, N)` bool; others do not count for the largest coordinate.

    Returns:
        `(B, N, 4)`.
    """
    coordinates = boxes.masked_fill(~valid[..., None], -torch.inf).flatten(1)
    largest = coordinates.amax(1, keepdim=True)  # (B, 1)
    return boxes + (groups.to(boxes) * (largest + 1))[..., None]
