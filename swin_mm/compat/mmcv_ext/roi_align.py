"""`roi_align` by torchvision's kernels."""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

AVERAGE = 1  # mmcv's numbering of `pool_mode`


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
        argmax_y, argmax_x: Of the maximum mode; unused.
        aligned_height, aligned_width: Rows and columns of the output.
        spatial_scale: Feature map cells per image pixel.
        sampling_ratio: Sampling points per output cell and axis; 0 takes one per feature map cell.
        pool_mode: `AVERAGE`, over the sampling points of an output cell.
        aligned: Whether the first cell's centre is at 0.5 instead of 0.
    """
    if pool_mode != AVERAGE:
        raise NotImplementedError("roi_align with pool_mode='max' needs mmcv's compiled extension")
    features = widen(input)
    sizes = (spatial_scale, aligned_height, aligned_width)
    pooled = torch.ops.torchvision.roi_align(
        features, rois.to(features.dtype), *sizes, sampling_ratio, aligned
    )
    output.copy_(pooled)


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
    sizes = (spatial_scale, aligned_height, aligned_width, *grad_input.shape)
    found = torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), *sizes, sampling_ratio, aligned
    )
    grad_input += found.to(grad_input.dtype)
