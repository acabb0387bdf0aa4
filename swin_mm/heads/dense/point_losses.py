"""Losses of RepPoints V2, of all images and levels at once, in float32 or better."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor, nn

from swin_mm.heads.ops.points import (
    GroundTruths,
    PointGrid,
    make_class_maps,
    make_corner_targets,
    pick,
)


class PointMaps(NamedTuple):
    """What the head predicts, a map for each level; points and shifts are in strides."""

    cls_scores: list[Tensor]  # (B, classes, H, W), logits
    pts_init: list[Tensor]  # (B, 2 * points, H, W), y and x of each point
    pts_refine: list[Tensor]  # likewise
    corner_scores: list[Tensor]  # (B, 2, H, W), logits: top left, bottom right
    corner_offsets: list[Tensor]  # (B, 4, H, W), x and y of each corner
    class_scores: list[Tensor]  # (B, classes, H, W), logits: where boxes of a class are


def flatten(levels: list[Tensor]) -> Tensor:
    """Maps `(B, C, H, W)` of all levels as `(B, N, C)`, in float32 or better."""
    return widen(torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2))


def widen(x: Tensor) -> Tensor:
    """The numbers in float32, or better if they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def class_loss(
    loss: nn.Module,
    scores: Tensor,
    boxes: Tensor,
    assigned: Tensor,
    grid: PointGrid,
    truths: GroundTruths,
) -> Tensor:
    """Loss of the scores `(B, N, classes)` of boxes `(B, N, 4)`.

    With a `QualityFocalLoss`, a score learns the IoU of its box with the ground truth assigned.
    """
    is_positive = assigned > 0
    labels = torch.where(is_positive, pick(truths.labels, assigned), scores.shape[-1]).flatten()
    target: Any = labels
    if isinstance(loss, QualityFocalLoss):
        wanted = pick(truths.boxes, assigned).flatten(0, 1)
        target = (labels, bbox_overlaps(boxes.detach().flatten(0, 1), wanted, is_aligned=True))
    weight = grid.usable.flatten().float()
    return loss(scores.flatten(0, 1), target, weight, avg_factor=_count(is_positive))


def box_loss(
    loss: nn.Module,
    boxes: Tensor,
    assigned: Tensor,
    grid: PointGrid,
    truths: GroundTruths,
    base_scale: float,
) -> Tensor:
    """Loss of boxes `(B, N, 4)` in units of `base_scale` strides.

    A box covers the units of both its corners, as in the official loss: it is one unit wider than
    from corner to corner.
    """
    is_positive = assigned > 0
    unit = base_scale * grid.strides[:, None]
    covered = torch.arange(4, device=boxes.device) // 2  # 0, 0, 1, 1
    pair = (boxes, pick(truths.boxes, assigned))
    found, wanted = ((box / unit + covered).flatten(0, 1) for box in pair)
    weight = is_positive.flatten()[:, None].expand(-1, 4).float()
    return loss(found, wanted, weight, avg_factor=_count(is_positive))


def corner_losses(
    heat_loss: nn.Module,
    offset_loss: nn.Module,
    maps: PointMaps,
    grid: PointGrid,
    truths: GroundTruths,
    min_iou: float,
) -> dict[str, Tensor]:
    """`loss_heatmap` and `loss_offset`, the means of those of both corners."""
    with torch.no_grad():
        targets = make_corner_targets(grid, truths, min_iou)
    heat = flatten(maps.corner_scores).sigmoid()
    shifts = flatten(maps.corner_offsets)
    weight = grid.usable.float()
    heat_losses, offset_losses = [], []
    for i, owned in enumerate(targets.owned.unbind(-1)):
        xy, count = slice(2 * i, 2 * i + 2), _count(owned)
        heat_losses.append(
            heat_loss(heat[..., i], targets.heat[..., i], weight=weight, avg_factor=count)
        )
        learnt = owned[..., None].expand(-1, -1, 2).float()
        offset_losses.append(
            offset_loss(shifts[..., xy], targets.offsets[..., xy], learnt, avg_factor=count)
        )
    return dict(loss_heatmap=sum(heat_losses) / 2, loss_offset=sum(offset_losses) / 2)


def map_loss(
    loss: nn.Module, scores: list[Tensor], truths: GroundTruths, num_classes: int, stride: int
) -> Tensor:
    """Loss of the maps of classes of all levels, all of whose cells count, in padding too.

    A cell touched by boxes of a class weighs one over the area of the smallest, divided by the sum
    of all these weights; any other weighs one over the number of those touched. `stride` is of the
    finest level; the others take every second cell of it, and so on.
    """
    weights = make_class_maps(truths, num_classes, scores[0].shape[-2:], stride)
    levels = [F.interpolate(weights, level.shape[-2:]).flatten() for level in scores]
    weight = torch.cat(levels)[:, None]
    target = (weight > 0).float()
    total = weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    weight = torch.where(weight > 0, weight / total, 1 / target.sum().clamp(min=1))
    found = torch.cat([widen(level.flatten()) for level in scores])[:, None]
    return loss(found, target, weight=weight, reduction_override="sum")


def _count(flags: Tensor) -> Tensor:
    """How many of `(B, N)` are true, in each image at least one."""
    return flags.sum(1).clamp(min=1).sum()
