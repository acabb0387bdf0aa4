"""`roi_align`: average mode by torchvision's kernels, maximum mode in PyTorch."""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.precision import widen
from swin_mm.compat.mmcv_ext.sampling import (
    RoiGrid,
    bilinear,
    by_sample_count,
    roi_grid,
    sample_points,
)

# mmcv's numbering of `pool_mode`.
MAXIMUM, AVERAGE = 0, 1
# What mmcv writes as the place of the maximum where a region has no sampling point.
NOWHERE = -1.0


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pools regions of a feature map to one size.

    Args:
        input: `(B, C, H, W)`.
        rois: `(R, 5)`, image index, then x1, y1, x2, y2 in image pixels.
        output: `(R, C, aligned_height, aligned_width)`, written.
        argmax_y: as `output`, written in mode `MAXIMUM`: where the maximum was, in cells.
        argmax_x: as `argmax_y`.
        aligned_height: rows of the output.
        aligned_width: columns of the output.
        spatial_scale: feature map cells per image pixel.
        sampling_ratio: sampling points per output cell and axis; 0 takes one per feature map cell.
        pool_mode: `MAXIMUM` or `AVERAGE`, over the sampling points of an output cell.
        aligned: whether the first cell's centre is at 0.5 instead of 0.
    """
    pooled = (aligned_height, aligned_width)
    features = widen(input)
    rois = rois.to(features.dtype)
    if pool_mode == AVERAGE:
        output.copy_(
            torch.ops.torchvision.roi_align(
                features, rois, spatial_scale, *pooled, sampling_ratio, aligned
            )
        )
        return
    grid = roi_grid(rois, pooled, spatial_scale, sampling_ratio, aligned)
    argmax_y.fill_(NOWHERE)
    argmax_x.fill_(NOWHERE)
    for chosen, part, samples in by_sample_count(grid):
        maximum, y, x = _largest_samples(features, part, pooled, samples)
        output[chosen] = maximum.to(output.dtype)
        argmax_y[chosen] = y.to(argmax_y.dtype)
        argmax_x[chosen] = x.to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` with respect to `input`, added to `grad_input`.

    Args:
        grad_output: `(R, C, aligned_height, aligned_width)`.
        grad_input: `(B, C, H, W)`, written.
        rois, argmax_y, argmax_x and the rest: as in `roi_align_forward`.
    """
    grad = widen(grad_output)
    rois = rois.to(grad.dtype)
    if pool_mode == AVERAGE:
        grad_input += torch.ops.torchvision._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        ).to(grad_input.dtype)
        return
    y, x = argmax_y.to(grad.dtype), argmax_x.to(grad.dtype)
    grad = grad * (y != NOWHERE)
    image = rois[:, 0].long()[:, None, None, None]
    channel = torch.arange(grad.shape[1], device=grad.device)[:, None, None]
    # The channels become images of one channel each, as every channel has maxima of its own.
    planes = torch.zeros(grad_input.shape, dtype=grad.dtype, device=grad.device)
    planes = planes.flatten(0, 1).unsqueeze(1).requires_grad_()
    with torch.enable_grad():
        values = bilinear(planes, image * grad.shape[1] + channel, y, x)
    (plane_grads,) = torch.autograd.grad(values, planes, grad.unsqueeze(-1))
    grad_input += plane_grads.view(grad_input.shape).to(grad_input.dtype)


def _largest_samples(
    features: Tensor, grid: RoiGrid, pooled: tuple[int, int], samples: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest sample of each output cell and its y and x, each `(R, C, PH, PW)`."""
    y, x = sample_points(grid, pooled, samples)  # (R, PH, SH), (R, PW, SW)
    y = y[:, :, None, :, None]  # (R, PH, 1, SH, 1)
    x = x[:, None, :, None, :]  # (R, 1, PW, 1, SW)
    values = bilinear(features, grid.image[:, None, None, None, None], y, x)
    values = values.permute(0, 5, 1, 2, 3, 4).flatten(-2)  # (R, C, PH, PW, SH*SW)
    maximum, place = values.max(dim=-1)
    rows, columns = place // samples[1], place % samples[1]
    y = y[:, None, :, :, :, 0].expand(*place.shape, -1)  # (R, C, PH, PW, SH)
    x = x[:, None, :, :, 0].expand(*place.shape, -1)  # (R, C, PH, PW, SW)
    return (
        maximum,
        y.gather(-1, rows.unsqueeze(-1)).squeeze(-1),
        x.gather(-1, columns.unsqueeze(-1)).squeeze(-1),
    )
