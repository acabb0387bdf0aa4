"""`roi_align_rotated`: average pooling of regions with an angle, in PyTorch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.sampling import RoiGrid, bilinear, sampling_points
from swin_mm.compat.mmcv_ext.tensors import add_gradients, widen

# Values that are interpolated at a time; each takes four reads.
MAX_VALUES = 1 << 24


def roi_align_rotated_forward(input: Tensor, rois: Tensor, output: Tensor, **options: Any) -> None:
    """Writes the mean of the sampling points of each output cell; see `_points`."""
    features = widen(input)
    output.zero_()  # regions without a sampling point
    for chosen, points in _points(rois.to(features.dtype), input.shape[1], **options):
        output[chosen] = bilinear(features, *points).mean(-2).movedim(-1, 1).to(output.dtype)


def roi_align_rotated_backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, **options: Any
) -> None:
    """Adds the gradient by the feature map to `grad_input`."""
    grad = widen(grad_output)
    features = torch.zeros_like(grad_input, dtype=grad.dtype)
    for chosen, points in _points(rois.to(grad.dtype), grad_input.shape[1], **options):

        def pool(features: Tensor, points: Any = points) -> Tensor:
            return bilinear(features, *points).mean(-2)

        add_gradients(pool, (features,), grad[chosen].movedim(1, -1), (grad_input,))


def _points(
    rois: Tensor,
    channels: int,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]:
    """Parts regions into groups, and places their sampling points on the feature map.

    `rois` are `(R, 6)`, image index, centre x and y, width and height in image pixels, and angle in
    radians, positive for a turn clockwise on the screen if `clockwise`. Regions of a map of so many
    `channels` may be narrower than one cell if `aligned`. See `sampling` for the other arguments.

    Yields:
        Indices of the group's regions `(G,)`; and image `(G, 1, 1, 1)`, y and x
        `(G, PH, PW, points)`, as `bilinear` takes them.

    Raises:
        ValueError: A region has a negative side, where `aligned`.
    """
    pooled = (pooled_height, pooled_width)
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
    for chosen, part, y, x in sampling_points(grid, pooled):
        cosine, sine = (f(angle[chosen])[:, None, None, None, None] for f in (torch.cos, torch.sin))
        down, across = centre[chosen, :, None, None, None, None].unbind(1)
        rows = (y * cosine - x * sine + down).flatten(-2)
        columns = (y * sine + x * cosine + across).flatten(-2)
        images = part.image[:, None, None, None]
        size_of_group = max(1, MAX_VALUES // (channels * rows[0].numel()))
        for some in torch.arange(len(chosen), device=rois.device).split(size_of_group):
            yield chosen[some], (images[some], rows[some], columns[some])
