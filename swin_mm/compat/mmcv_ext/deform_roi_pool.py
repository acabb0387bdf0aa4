"""`deform_roi_pool`: RoIAlign whose cells move by learned offsets."""

from functools import partial
from typing import Any

from torch import Tensor

from swin_mm.compat.mmcv_ext.sampling import bilinear, roi_grid, sampling_points
from swin_mm.compat.mmcv_ext.tensors import add_gradients, widen


def deform_roi_pool_forward(
    input: Tensor, rois: Tensor, offset: Tensor, output: Tensor, **options: Any
) -> None:
    """Writes what `_pool` gives."""
    output.copy_(_pool(widen(input), widen(offset), rois=rois, **options))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    **options: Any,
) -> None:
    """Gradients by input and offset.

    Deviation: for a sample within one cell outside the map the compiled operator returns a slope
    of the extrapolated map to the offset; the value there is constant, so here it is 0.
    """
    function = partial(_pool, rois=rois, **options)
    add_gradients(function, (input, offset), grad_output, (grad_input, grad_offset))


def _pool(
    features: Tensor,
    offset: Tensor,
    rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """Averages samples in each cell of a region, after moving the cell, `(R, C, PH, PW)`.

    `offset`, `(R, 2, PH, PW)` or empty, shifts a cell in x, then y, in units of `gamma` times the
    region's side. A region without area gives 0. See `sampling` for the other arguments.
    """
    pooled = (pooled_height, pooled_width)
    rois = rois.to(features.dtype)
    output = features.new_zeros(len(rois), features.shape[1], *pooled)
    grid = roi_grid(rois, pooled, spatial_scale, sampling_ratio, aligned=True)
    for chosen, part, y, x in sampling_points(grid, pooled):
        if offset.numel():
            side = gamma * part.size.flip(-1)[:, :, None, None]  # (R, xy, 1, 1)
            shift = (side * offset[chosen])[..., None, None]  # (R, xy, PH, PW, 1, 1)
            y, x = y + shift[:, 1], x + shift[:, 0]
        values = bilinear(features, part.image[:, None, None, None, None], y, x)
        output[chosen] = values.mean(dim=(3, 4)).permute(0, 3, 1, 2)  # (R, C, PH, PW)
    return output
