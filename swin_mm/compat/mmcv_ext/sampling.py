"""Where RoI operators sample a feature map, and what they read there.

The arguments that mmcv's RoI operators share: `input`, a map `(B, C, H, W)`; `rois` `(R, 5)`, image
index, then x1, y1, x2, y2 in image pixels; the rows `PH` and columns `PW` of the output
`(R, C, PH, PW)`, which is written; `spatial_scale`, cells of the map per image pixel;
`sampling_ratio`, sampling points per output cell and axis, 0 for one per cell of the map; and
`aligned`, whether the first cell's centre is at 0.5 instead of 0.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class RoiGrid(NamedTuple):
    """Regions of interest on a feature map, in units of its cells."""

    image: Tensor  # (R,) int64, index into the batch
    start: Tensor  # (R, 2), y and x of the first corner
    size: Tensor  # (R, 2), height and width
    bin: Tensor  # (R, 2), height and width of one pooled cell
    samples: Tensor  # (R, 2) int64, sampling points per pooled cell, down and across


def roi_grid(
    rois: Tensor,
    pooled: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> RoiGrid:
    """Places regions on a feature map. Only `aligned` ones may be narrower than one cell."""
    corners = rois[:, 1:].unflatten(1, (2, 2)).flip(-1) * spatial_scale  # (R, corner, yx)
    if aligned:
        corners = corners - 0.5
    start, end = corners.unbind(dim=1)
    size = end - start
    if not aligned:
        size = size.clamp(min=1)
    cell = torch.stack((size[:, 0] / pooled[0], size[:, 1] / pooled[1]), dim=1)
    samples = cell.ceil().clamp(min=0).long()
    if sampling_ratio > 0:
        samples = torch.full_like(samples, sampling_ratio)
    return RoiGrid(rois[:, 0].long(), start, size, cell, samples)


def sampling_points(
    grid: RoiGrid, pooled: tuple[int, int]
) -> Iterator[tuple[Tensor, RoiGrid, Tensor, Tensor]]:
    """Places the sampling points of regions, of those with the same number of them together.

    Yields:
        Indices of the group's regions, the group, and y `(R, PH, 1, SH, 1)` and x
        `(R, 1, PW, 1, SW)` of its points in feature map cells. Regions without any point are left
        out.
    """
    counts, group = grid.samples.unique(dim=0, return_inverse=True)
    for index, samples in enumerate(counts.tolist()):
        if 0 in samples:
            continue
        chosen = (group == index).nonzero().squeeze(1)
        part = RoiGrid(*(field[chosen] for field in grid))
        axes = []
        for axis in (0, 1):
            options: dict[str, Any] = dict(device=part.start.device, dtype=part.start.dtype)
            cell, step = (torch.arange(n[axis], **options) for n in (pooled, samples))
            start, size = part.start[:, axis, None, None], part.bin[:, axis, None, None]
            axes.append(start + cell[:, None] * size + (step + 0.5) * size / samples[axis])
        yield chosen, part, axes[0][:, :, None, :, None], axes[1][:, None, :, None, :]


def bilinear(features: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Interpolates between the four cells around each point; differentiable.

    A point up to one cell outside the map takes the value at the border, and one farther out 0.
    Points `y` and `x` of features `(B, C, H, W)` are in cells and broadcast with the int64 indices
    `image`; what is returned has the channels at the end.
    """
    height, width = features.shape[2:]
    cells = features.permute(0, 2, 3, 1).flatten(0, 2)  # (B*H*W, C)
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.detach().floor().long(), x.detach().floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    below, after = y - top, x - left
    row_top, row_bottom = (image * height + top) * width, (image * height + bottom) * width
    value = (
        cells[row_top + left] * ((1 - below) * (1 - after)).unsqueeze(-1)
        + cells[row_top + right] * ((1 - below) * after).unsqueeze(-1)
        + cells[row_bottom + left] * (below * (1 - after)).unsqueeze(-1)
        + cells[row_bottom + right] * (below * after).unsqueeze(-1)
    )
    return value * inside.unsqueeze(-1)
