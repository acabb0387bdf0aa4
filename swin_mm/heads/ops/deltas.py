"""Boxes as shifts and stretches of other boxes, without waiting for the device."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from swin_mm.heads.ops.transfer import to_device

# Boxes become at most so many times as wide or high, as in mmdet and Detectron.
MAX_STRETCH = 1000 / 16


def encode_deltas(
    boxes: Tensor, targets: Tensor, means: Sequence[float], stds: Sequence[float]
) -> Tensor:
    """Deltas `(N, 4)`, in float32, from which `decode_deltas` makes targets of boxes."""
    center, sides = _center_and_sides(boxes.float())
    target_center, target_sides = _center_and_sides(targets.float())
    shift = (target_center - center) / sides
    deltas = torch.cat((shift, torch.log(target_sides / sides)), dim=1)
    return deltas.sub_(_constant(means, deltas)).div_(_constant(stds, deltas))


def decode_deltas(
    boxes: Tensor,
    deltas: Tensor,
    means: Sequence[float],
    stds: Sequence[float],
    limits: Tensor | None = None,
) -> Tensor:
    """Shifts and stretches boxes `(N, 4)`, x1, y1, x2, y2 in pixels.

    Deltas `(N, 4)` are dx, dy in widths and heights of the box, and dw, dh, logarithms of the
    factors on them, normalised by means and standard deviations. `limits`, `(N, 2)`, are width and
    height of each box's image, to clip it to.

    Source: `delta2bbox` of mmdet 3.3.0, whose order of operations decides the rounding.
    """
    deltas = deltas * _constant(stds, deltas) + _constant(means, deltas)
    center, sides = _center_and_sides(boxes)
    max_log = math.log(MAX_STRETCH)
    half = sides * deltas[:, 2:].clamp(-max_log, max_log).exp() * 0.5
    center = center + sides * deltas[:, :2]
    decoded = torch.cat((center - half, center + half), dim=1)
    if limits is None:
        return decoded
    return torch.minimum(decoded.clamp(min=0), limits.repeat(1, 2).to(decoded.dtype))


def _center_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centres `(N, 2)` and widths and heights `(N, 2)`."""
    return (boxes[:, :2] + boxes[:, 2:]) * 0.5, boxes[:, 2:] - boxes[:, :2]


def _constant(values: Sequence[float], like: Tensor) -> Tensor:
    return to_device(torch.tensor(values, dtype=like.dtype), like.device)
