"""`deform_conv` and `modulated_deform_conv`, by torchvision's kernels for both.

mmcv and torchvision lay out offsets alike: per offset group and kernel cell first y, then x.
"""

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.precision import widen


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolves samples taken at learned offsets from the kernel's grid.

    Args:
        input: `(B, C, H, W)`.
        weight: `(C_out, C // group, kH, kW)`.
        offset: `(B, deformable_group * kH * kW * 2, H_out, W_out)`, in cells.
        output: `(B, C_out, H_out, W_out)`, written.
        dW, dH: stride.
        columns, ones, im2col_step: working memory of the compiled operator; unused.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    input, weight, offset = widen(input), widen(weight), widen(offset)
    mask, bias = input.new_zeros(len(input), 1), input.new_zeros(len(weight))  # neither counts
    output.copy_(
        torch.ops.torchvision.deform_conv2d(input, weight, offset, mask, bias, *geometry, False)
    )


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of `deform_conv_forward` with respect to `input` and `offset`.

    Args:
        gradOutput: as `output` of the forward operator.
        gradInput: as `input`, written.
        gradOffset: as `offset`, written.
        columns: receives the gradient of `weight`. torchvision computes all gradients at once, and
            mmcv hands the same working memory to `deform_conv_backward_parameters` next.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grad_input, grad_weight, grad_offset = _deform_conv_backward(
        gradOutput, input, weight, offset, geometry
    )
    gradInput.copy_(grad_input)
    gradOffset.copy_(_clear_outside(grad_offset, offset, input, weight, geometry))
    columns.resize_(weight.shape).copy_(grad_weight)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Gradient of `deform_conv_forward` with respect to `weight`.

    Args:
        gradOutput: as `output` of the forward operator.
        gradWeight: as `weight`; `scale` times the gradient is added.
        columns: holds the gradient where `deform_conv_backward_input` has run before.
    """
    if columns.shape == gradWeight.shape:
        grad_weight = columns
    else:
        geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
        # The values of the weight do not enter its own gradient, only its shape does.
        _, grad_weight, _ = _deform_conv_backward(gradOutput, input, gradWeight, offset, geometry)
    gradWeight += scale * grad_weight.to(gradWeight.dtype)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolves samples taken at learned offsets, each scaled by a learned factor.

    Args:
        input: `(B, C, H, W)`.
        weight: `(C_out, C // group, kernel_h, kernel_w)`.
        bias: `(C_out,)`; read when `with_bias`.
        offset: `(B, deformable_group * kernel_h * kernel_w * 2, H_out, W_out)`, in cells. May be
            of a larger map: see `_leading_values`.
        mask: `(B, deformable_group * kernel_h * kernel_w, H_out, W_out)`, the factors. May be of
            a larger map.
        output: `(B, C_out, H_out, W_out)`, written.
        ones, columns: working memory of the compiled operator; unused.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    input, weight, bias, offset, mask = map(widen, (input, weight, bias, offset, mask))
    offset, mask = _leading_values(offset, output), _leading_values(mask, output)
    if not with_bias:
        bias = input.new_zeros(len(weight))
    output.copy_(
        torch.ops.torchvision.deform_conv2d(input, weight, offset, mask, bias, *geometry, True)
    )


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of `modulated_deform_conv_forward`, written into the `grad_` tensors.

    Args:
        grad_output: as `output` of the forward operator.
        grad_bias: written when `with_bias`.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    input, weight, bias, offset, mask = map(widen, (input, weight, bias, offset, mask))
    offset, mask = _leading_values(offset, grad_output), _leading_values(mask, grad_output)
    if not with_bias:
        bias = input.new_zeros(len(weight))
    grads = torch.ops.torchvision._deform_conv2d_backward(
        widen(grad_output), input, weight, offset, mask, bias, *geometry, True
    )
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _copy_leading_values(grad_offset, _clear_outside(grads[2], offset, input, weight, geometry))
    _copy_leading_values(grad_mask, grads[3])
    if with_bias:
        grad_bias.copy_(grads[4])


def _deform_conv_backward(
    grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, geometry: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the convolution without factors: input, weight, offset."""
    grad_output, input, weight, offset = map(widen, (grad_output, input, weight, offset))
    mask, bias = input.new_zeros(len(input), 1), input.new_zeros(len(weight))  # neither counts
    grads = torch.ops.torchvision._deform_conv2d_backward(
        grad_output, input, weight, offset, mask, bias, *geometry, False
    )
    return grads[0], grads[1], grads[2]


def _clear_outside(
    grad_offset: Tensor, offset: Tensor, input: Tensor, weight: Tensor, geometry: tuple[int, ...]
) -> Tensor:
    """Offsets of samples at least one cell outside the map have no gradient, as in mmcv.

    torchvision's have one where a sample is exactly one cell outside: a sample nearer to the map
    would read it. Untrained offsets are 0, so with padding of 1 many samples are there.

    Source: `get_coordinate_weight` and its callers in mmcv's `csrc/pytorch/cpu/deform_conv.cpp`.
    """
    stride, padding, dilation = geometry[0:2], geometry[2:4], geometry[4:6]
    kernel, out_size = weight.shape[2:], offset.shape[2:]
    shifts = widen(offset).unflatten(1, (-1, *kernel, 2))  # (B, groups, kH, kW, 2, H_out, W_out)
    outside = torch.zeros_like(shifts[:, :, :, :, 0], dtype=torch.bool)
    for axis in (0, 1):
        place = torch.arange(out_size[axis], device=offset.device) * stride[axis] - padding[axis]
        tap = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        place = place.view(-1, 1) if axis == 0 else place
        tap = tap.view(-1, 1, 1, 1) if axis == 0 else tap.view(-1, 1, 1)
        at = shifts[:, :, :, :, axis] + (place + tap)
        outside = outside | (at <= -1) | (at >= input.shape[2 + axis])
    return grad_offset.masked_fill(outside.unsqueeze(4).expand_as(shifts).reshape(offset.shape), 0)


def _leading_values(tensor: Tensor, output: Tensor) -> Tensor:
    """Offsets or factors for the output's places: `(B, K, H_out, W_out)`.

    The compiled operator reads each image's values from their start, in steps of the output's
    size, whatever map they were made for. mmdet's DyHead relies on it: for its coarser level it
    passes the offsets of the finer one, and published weights were trained with what is read then.

    Args:
        tensor: `(B, K, H, W)`.
        output: `(B, C_out, H_out, W_out)`.

    Raises:
        ValueError: there are fewer values than places.
    """
    size = output.shape[2:]
    if tensor.shape[2:] == size:
        return tensor
    count = tensor.shape[1] * size.numel()
    if tensor[0].numel() < count:
        raise ValueError(
            f"offset and mask must be at least as large as the output, which is {tuple(size)}, "
            f"got {tuple(tensor.shape)}"
        )
    return tensor.flatten(1)[:, :count].unflatten(1, (-1, *size))


def _copy_leading_values(target: Tensor, values: Tensor) -> None:
    """Writes back what `_leading_values` took, and 0 behind it."""
    padded = values.new_zeros(len(target), target[0].numel())
    padded[:, : values[0].numel()] = values.flatten(1)
    target.copy_(padded.view(target.shape))
