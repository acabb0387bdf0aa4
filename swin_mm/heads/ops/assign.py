"""Boxes to ground truths by their overlap, for all images at once.

The device is never waited for, so the host can go on and queue what comes next.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from mmdet.models.task_modules import MaxIoUAssigner

# mmdet's least union, square pixels: keeps boxes without area from dividing by zero.
MIN_UNION = 1e-6
# Pairs of box and ground truth looked at in one go. On a GPU each of the five or so tensors of
# this size takes 64 MiB; a CPU was fastest with 8 MiB.
MAX_PAIRS = {"cuda": 2**24, "cpu": 2**21}


def pad_boxes(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Stacks boxes `(G_i, 4)`, or labels `(G_i,)`, of images that have different numbers of them.

    Returns:
        `(B, G, 4)` or `(B, G)`, zeros at the end of shorter rows; and `(B, G)` bool, where there
        is one. `G` is the largest `G_i`.
    """
    padded = pad_sequence(list(boxes), batch_first=True)
    numbers = torch.arange(padded.shape[1], device=padded.device)
    rows = [numbers < len(image) for image in boxes]
    return padded, torch.stack(rows)


def pairwise_iou(gt_boxes: Tensor, boxes: Tensor) -> Tensor:
    """IoU `(B, G, N)` of ground truths with boxes, rounded as mmdet's `bbox_overlaps` does it."""
    ax1, ay1, ax2, ay2 = gt_boxes.unsqueeze(2).unbind(-1)  # (B, G, 1)
    # Each coordinate in one piece of memory: read in strides of 4, it takes three times as long.
    bx1, by1, bx2, by2 = boxes.unsqueeze(1).movedim(-1, 0).contiguous()  # (B, 1, N)
    overlap = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1)).clamp_(min=0)
    overlap *= torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1)).clamp_(min=0)
    union = ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1)).sub_(overlap)
    return overlap.div_(union.clamp_(min=MIN_UNION))


def assign(
    assigner: "MaxIoUAssigner",
    boxes: Tensor,
    gt_boxes: Tensor,
    present: Tensor,
    usable: Tensor | None = None,
) -> Tensor:
    """Gives the boxes of all images the ground truths that an assigner would, image by image.

    A box belongs to the ground truth with which it overlaps most, if by `pos_iou_thr`, and to the
    background if that overlap is less than `neg_iou_thr`. After that, low-quality matching gives
    each ground truth the boxes that overlap it most; where two claim a box, the later one has it.
    In an image without ground truths every box is background.

    Memory is that of `MAX_PAIRS` pairs and of a few tensors `(B, N)`.

    Args:
        assigner: One for which `unsupported.sampling` gives no reason.
        boxes: `(B, N, 4)`, or `(1, N, 4)` for all images; x1, y1, x2, y2 in pixels.
        gt_boxes: `(B, G, 4)`, as `pad_boxes` stacks them.
        present: `(B, G)` bool, where there is a ground truth; the others are at the end.
        usable: `(B, N)` bool, boxes that count; `None` for all.

    Returns:
        `(B, N)` int64: 1 + the number of the ground truth, 0 for background, -1 for neither and for
        boxes that do not count.

    Source: `MaxIoUAssigner.assign_wrt_overlaps` of mmdet 3.3.0, which asks ground truth by ground
    truth whether low-quality matching applies and so waits for the device each time.
    """
    num_images, num_gts = present.shape
    shape = (num_images, boxes.shape[1])
    best = boxes.new_full(shape, -1.0)
    matched = torch.zeros(shape, dtype=torch.int32, device=boxes.device)  # 0-based
    forced = torch.zeros_like(matched)  # 1-based, 0 where there is no claim
    limit = MAX_PAIRS.get(best.device.type, MAX_PAIRS["cuda"])
    step = max(1, limit // max(1, best.numel()))  # ground truths of each image in one go
    for start in range(0, num_gts if best.numel() else 0, step):
        chunk = slice(start, start + step)
        overlaps = pairwise_iou(gt_boxes[:, chunk], boxes)  # (B, g, N)
        if usable is not None:
            overlaps.masked_fill_(~usable[:, None], -1)
        numbers = torch.arange(
            start, start + overlaps.shape[1], dtype=torch.int32, device=boxes.device
        )[:, None]  # (g, 1)
        # `max` with indices takes thirty times as long as `amax` here; the first one wins ties.
        highest = overlaps.amax(1)
        first = torch.where(overlaps == highest[:, None], numbers, num_gts).amin(1)
        matched = torch.where(highest > best, first, matched)
        best = torch.maximum(best, highest)
        if assigner.match_low_quality:
            claims = _claim(overlaps, numbers, present[:, chunk], assigner)
            forced = torch.maximum(forced, claims)
    bounds = assigner.neg_iou_thr
    least, upper = bounds if isinstance(bounds, tuple) else (0.0, bounds)
    assigned = torch.where((best >= least) & (best < upper), 0, -1)
    assigned = torch.where(best >= assigner.pos_iou_thr, matched + 1, assigned)
    assigned = torch.where(forced > 0, forced, assigned)
    assigned = torch.where(present.any(1, keepdim=True), assigned, 0)
    return (assigned if usable is None else torch.where(usable, assigned, -1)).long()


def _claim(
    overlaps: Tensor, numbers: Tensor, present: Tensor, assigner: "MaxIoUAssigner"
) -> Tensor:
    """Low-quality matching of ground truths `(B, g)`: the last, 1-based, to claim each box or 0."""
    peak = overlaps.amax(2)  # (B, g)
    claiming = present & (peak >= assigner.min_pos_iou)
    if assigner.gt_max_assign_all:
        peak = torch.where(claiming, peak, torch.nan)  # equal to nothing
        return torch.where(overlaps == peak[..., None], numbers + 1, 0).amax(1)
    claims = torch.where(claiming, numbers[:, 0] + 1, 0).int()
    nobody = claims.new_zeros(overlaps.shape[0], overlaps.shape[2])
    return nobody.scatter_reduce(1, overlaps.argmax(2), claims, "amax")
