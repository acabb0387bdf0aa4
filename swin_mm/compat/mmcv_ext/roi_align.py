"""`roi_align`: average mode by torchvision's kernels, maximum mode in PyTorch."""

from functools import partial

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.sampling import bilinear, roi_grid, sampling_points
from swin_mm.compat.mmcv_ext.tensors import add_gradients, widen

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
    """Pools regions of a feature map to one size; see `sampling` for the arguments.

    `pool_mode` is `MAXIMUM` or `AVERAGE`, over the sampling points of an output cell. In the first,
    `argmax_y` and `argmax_x`, as `output`, are written: where the maximum was, in cells.
    """
    pooled = (aligned_height, aligned_width)
    features = widen(input)
    rois = rois.to(features.dtype)
    if pool_mode == AVERAGE:
        options = (spatial_scale, *pooled, sampling_ratio, aligned)
        output.copy_(torch.ops.torchvision.roi_align(features, rois, *options))
        return
    grid = roi_grid(rois, pooled, spatial_scale, sampling_ratio, aligned)
    argmax_y.fill_(NOWHERE)
    argmax_x.fill_(NOWHERE)
    for chosen, part, y, x in sampling_points(grid, pooled):
        maximum, y, x = _largest_samples(features, part.image, y, x)
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
    """Adds the gradient of `roi_align_forward` by `input` to `grad_input`."""
    grad = widen(grad_output)
    rois = rois.to(grad.dtype)
    if pool_mode == AVERAGE:
        sizes = (spatial_scale, aligned_height, aligned_width, *grad_input.shape)
        backward = torch.ops.torchvision._roi_align_backward
        found = backward(grad, rois, *sizes, sampling_ratio, aligned)
        grad_input += found.to(grad_input.dtype)
        return
    y, x = argmax_y.to(grad.dtype), argmax_x.to(grad.dtype)
    grad = grad * (y != NOWHERE)
    # The channels become images of one channel each, as every channel has maxima of its own.
    planes = grad_input.flatten(0, 1).unsqueeze(1)
    image = rois[:, 0].long()[:, None, None, None] * grad.shape[1]
    image = image + torch.arange(grad.shape[1], device=grad.device)[:, None, None]
    function = partial(bilinear, image=image, y=y, x=x)
    add_gradients(function, (torch.zeros_like(planes),), grad.unsqueeze(-1), (planes,))


def _largest_samples(
    features: Tensor, image: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest sample of each output cell and its y and x, each `(R, C, PH, PW)`."""
    values = bilinear(features, image[:, None, None, None, None], y, x)
    values = values.permute(0, 5, 1, 2, 3, 4).flatten(-2)  # (R, C, PH, PW, SH*SW)
    maximum, place = values.max(dim=-1)
    rows, columns = place // x.shape[-1], place % x.shape[-1]
    y = y[:, None, :, :, :, 0].expand(*place.shape, -1)  # (R, C, PH, PW, SH)
    x = x[:, None, :, :, 0].expand(*place.shape, -1)  # (R, C, PH, PW, SW)
    return (
        maximum,
        y.gather(-1, rows.unsqueeze(-1)).squeeze(-1),
        x.gather(-1, columns.unsqueeze(-1)).squeeze(-1),
    )
