"""What detectors do with boxes, with sizes that do not depend on values.

A place without a box has the score 0.
"""

import torch
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from torch import Tensor

from swin_mm.export.inputs import Batch
from swin_mm.heads.ops.deltas import decode_deltas


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best of scores `(B, N)`, 0 or more, and where they are, `(B, count)` each.

    Places beyond the scores have 0 and point at the first.
    """
    padded = torch.cat([scores, scores.new_full((scores.shape[0], count), -1.0)], dim=1)
    best, index = padded.topk(count, dim=1)
    missing = best < 0
    return best.masked_fill(missing, 0.0), index.masked_fill(missing, 0)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Picks `(B, K, C)` of `(B, N, C)` by `(B, K)`."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def make_anchors(generator: AnchorGenerator, level: int, features: Tensor) -> Tensor:
    """The anchors of a level, `(H*W*K, 4)`, for a map `(B, C, H, W)`; mmdet's would be tiled."""
    height, width = features.shape[2:]
    stride_x, stride_y = generator.strides[level]
    base = generator.base_anchors[level].to(features.device, torch.float32)
    x = torch.arange(width, device=features.device) * stride_x
    y = torch.arange(height, device=features.device) * stride_y
    x, y = x[None, :].expand(height, width), y[:, None].expand(height, width)
    shifts = torch.stack([x, y, x, y], dim=-1).float()  # (H, W, 4)
    return (shifts[:, :, None] + base).flatten(0, 2)


def decode_distances(
    coder: DistancePointBBoxCoder, points: Tensor, distances: Tensor, batch: Batch
) -> Tensor:
    """Boxes around points `(B, N, 2)` by distances to their sides `(B, N, 4)`, clipped."""
    places = torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=2)
    return _clip(places, batch) if coder.clip_border else places


def decode(coder: DeltaXYWHBBoxCoder, boxes: Tensor, deltas: Tensor, batch: Batch) -> Tensor:
    """Moves boxes `(B, N, 4)` by `(B, N, 4)` and clips them to the images."""
    moved = decode_deltas(boxes.flatten(0, 1), deltas.flatten(0, 1), coder.means, coder.stds)
    moved = moved.view(boxes.shape)
    return _clip(moved, batch) if coder.clip_border else moved


def _clip(places: Tensor, batch: Batch) -> Tensor:
    width, height = (places.new_full((1,), side) for side in (batch.width, batch.height))
    return torch.minimum(places.clamp(min=0), torch.cat([width, height, width, height]))


def drop_small(boxes: Tensor, scores: Tensor, least: float) -> Tensor:
    """Scores `(B, N)`, 0 where a side of the box is not above `least`; negative drops none."""
    if least < 0:
        return scores
    large = (boxes[..., 2:] - boxes[..., :2] > least).all(2)
    return torch.where(large, scores, 0.0)
