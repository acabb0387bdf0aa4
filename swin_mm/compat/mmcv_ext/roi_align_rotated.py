"""`roi_align_rotated`: average pooling of regions with an angle, in PyTorch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.precision import widen
from swin_mm.compat.mmcv_ext.sampling import RoiGrid, bilinear, by_sample_count, sample_points

# Values that are interpolated at a time; each takes four reads.
MAX_VALUES = 1 << 24


def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Pools rotated regions of a feature map to one size.

    Args:
        input: `(B, C, H, W)`.
        rois: `(R, 6)`, image index, centre x and y, width and height in image pixels, and angle in
            radians.
        output: `(R, C, pooled_height, pooled_width)`, written.
        spatial_scale: feature map cells per image pixel.
        sampling_ratio: sampling points per output cell and axis; 0 takes one per feature map cell.
        aligned: whether the first cell's centre is at 0.5 instead of 0; regions may then be
            narrower than one cell.
        clockwise: whether positive angles turn clockwise on the screen.

    Raises:
        ValueError: a region has a negative side, where `aligned`.
    """
    features = widen(input)
    geometry = (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned, clockwise
    output.zero_()  # regions without a sampling point
    for chosen, points in _points(rois.to(features.dtype), input.shape[1], *geometry):
        output[chosen] = bilinear(features, *points).mean(-2).movedim(-1, 1).to(output.dtype)


def roi_align_rotated_backward(
    grad_output: Tensor,
    rois: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> None:
    """Gradient of `roi_align_rotated_forward` with respect to `input`, added to `grad_input`.

    Args:
        grad_output: `(R, C, pooled_height, pooled_width)`.
        grad_input: `(B, C, H, W)`, written.
        rois and the rest: as in `roi_align_rotated_forward`.
    """
    grad = widen(grad_output)
    geometry = (pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned, clockwise
    features = torch.zeros_like(grad_input, dtype=grad.dtype).requires_grad_()
    for chosen, points in _points(rois.to(grad.dtype), grad_input.shape[1], *geometry):
        with torch.enable_grad():
            pooled = bilinear(features, *points).mean(-2)
        (part,) = torch.autograd.grad(pooled, features, grad[chosen].movedim(1, -1))
        grad_input += part.to(grad_input.dtype)


def _points(
    rois: Tensor,
    channels: int,
    pooled: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """Parts regions into groups, and places their sampling points on the feature map.

    Yields:
        Indices of the group's regions `(G,)`; and image `(G, 1, 1, 1)`, y and x
        `(G, PH, PW, points)`, as `bilinear` takes them.
    """
    centre = rois[:, [2, 1]] * spatial_scale - (0.5 if aligned else 0.0)  # (R, yx)
    size = rois[:, [4, 3]] * spatial_scale
    if not aligned:
        size = size.clamp(min=1)
    elif (size < 0).any():
        raise ValueError("roi_align_rotated needs regions without negative sides")
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    cell = size / size.new_tensor(pooled)
    samples = cell.ceil().long()
    if sampling_ratio > 0:
        samples = torch.full_like(samples, sampling_ratio)
    # Around the centre; turned afterwards.
    grid = RoiGrid(rois[:, 0].long(), -size / 2, size, cell, samples)
    for chosen, part, counts in by_sample_count(grid):
        y, x = sample_points(part, pooled, counts)  # (G, PH, SH), (G, PW, SW)
        y, x = y[:, :, None, :, None], x[:, None, :, None, :]
        cosine, sine = (f(angle[chosen])[:, None, None, None, None] for f in (torch.cos, torch.sin))
        down, across = centre[chosen, :, None, None, None, None].unbind(1)
        rows = (y * cosine - x * sine + down).flatten(-2)
        columns = (y * sine + x * cosine + across).flatten(-2)
        images = part.image[:, None, None, None]
        size_of_group = max(1, MAX_VALUES // (channels * rows[0].numel()))
        for some in torch.arange(len(chosen), device=rois.device).split(size_of_group):
            yield chosen[some], (images[some], rows[some], columns[some])
