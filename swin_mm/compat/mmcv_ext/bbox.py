"""`bbox_overlaps`: IoU and IoF of axis-aligned boxes."""

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

# mmcv's numbering of `mode`: intersection over union, intersection over the first box.
IOU, IOF = 0, 1


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Overlap of boxes `(N, 4)` and `(M, 4)`, written to `ious` `(N, M)`, or of pairs `(N,)`.

    With an `offset` of 1, x2 and y2 are the last pixel inside.
    """
    first, second = widen(bboxes1), widen(bboxes2)
    if not aligned:
        first = first[:, None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(
        first[..., :2], second[..., :2]
    )
    intersection = (sides + offset).clamp(min=0).prod(dim=-1)
    area = (first[..., 2:] - first[..., :2] + offset).prod(dim=-1)
    if mode == IOU:
        area = area + (second[..., 2:] - second[..., :2] + offset).prod(dim=-1) - intersection
    ious.copy_(intersection / area)
