"""`deform_roi_pool`: RoIAlign whose cells move by learned offsets."""

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.precision import widen
from swin_mm.compat.mmcv_ext.sampling import bilinear, by_sample_count, roi_grid, sample_points


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Averages samples in each cell of a region, after moving the cell.

    Args:
        input: `(B, C, H, W)`.
        rois: `(R, 5)`, image index, then x1, y1, x2, y2 in image pixels.
        offset: `(R, 2, pooled_height, pooled_width)`, shift of a cell in x, then y, in units of
            `gamma` times the region's side; or empty for none.
        output: `(R, C, pooled_height, pooled_width)`, written.
        pooled_height: rows of the output.
        pooled_width: columns of the output.
        spatial_scale: feature map cells per image pixel.
        sampling_ratio: sampling points per output cell and axis; 0 takes one per feature map cell.
        gamma: scale of the offsets.
    """
    pooled = (pooled_height, pooled_width)
    output.copy_(
        _pool(widen(input), rois, widen(offset), pooled, spatial_scale, sampling_ratio, gamma)
    )


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Gradients of `deform_roi_pool_forward`, added to `grad_input` and `grad_offset`.

    Args:
        grad_output: `(R, C, pooled_height, pooled_width)`.
        grad_input: `(B, C, H, W)`, written.
        grad_offset: as `offset`, written.
        input and the rest: as in `deform_roi_pool_forward`.

    Deviation: for a sample within one cell outside the map the compiled operator returns a slope
    of the extrapolated map to the offset; the value there is constant, so here it is 0.
    """
    leaves = [widen(tensor).detach().requires_grad_() for tensor in (input, offset)]
    pooled = (pooled_height, pooled_width)
    with torch.enable_grad():
        output = _pool(leaves[0], rois, leaves[1], pooled, spatial_scale, sampling_ratio, gamma)
    if not output.requires_grad:  # no region has an area
        return
    grads = torch.autograd.grad(output, leaves, widen(grad_output), allow_unused=True)
    for total, grad in zip((grad_input, grad_offset), grads, strict=True):
        if grad is not None:
            total += grad.to(total.dtype)


def _pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor,
    pooled: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    """The pooled regions, `(R, C, PH, PW)`; differentiable. 0 where a region has no area."""
    rois = rois.to(features.dtype)
    output = features.new_zeros(len(rois), features.shape[1], *pooled)
    grid = roi_grid(rois, pooled, spatial_scale, sampling_ratio, aligned=True)
    for chosen, part, samples in by_sample_count(grid):
        y, x = sample_points(part, pooled, samples)  # (R, PH, SH), (R, PW, SW)
        y = y[:, :, None, :, None]  # (R, PH, 1, SH, 1)
        x = x[:, None, :, None, :]  # (R, 1, PW, 1, SW)
        if offset.numel():
            side = gamma * part.size.flip(-1)[:, :, None, None]  # (R, xy, 1, 1)
            shift = (side * offset[chosen])[..., None, None]  # (R, xy, PH, PW, 1, 1)
            y, x = y + shift[:, 1], x + shift[:, 0]
        values = bilinear(features, part.image[:, None, None, None, None], y, x)
        output[chosen] = values.mean(dim=(3, 4)).permute(0, 3, 1, 2)  # (R, C, PH, PW)
    return output
