"""`deform_conv` and `modulated_deform_conv`, by torchvision's kernels for both.

mmcv and torchvision lay out offsets alike: per offset group and kernel cell first y, then x.
"""

from typing import Any

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import widen

GEOMETRY = (
    *("dH", "dW", "padH", "padW", "dilationH", "dilationW"),
    *("group", "deformable_group"),
)
MODULATED_GEOMETRY = (
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    **options: Any,
) -> None:
    """Convolves samples taken at learned offsets from the kernel's grid.

    Args:
        input: `(B, C, H, W)`.
        weight: `(C_out, C // group, kH, kW)`.
        offset: `(B, deformable_group * kH * kW * 2, H_out, W_out)`, in cells.
        output: `(B, C_out, H_out, W_out)`, written.
        columns, ones: Working memory of the compiled operator; unused.
        options: `dH`, `dW` (stride), `padH`, `padW`, `dilationH`, `dilationW`, `group`,
            `deformable_group`.
    """
    arguments = _arguments(input, weight, offset, options)
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **options: Any,
) -> None:
    """Writes the gradients of `deform_conv_forward` by `input` and `offset`.

    `columns` receives that by `weight`: torchvision computes all gradients at once, and mmcv hands
    the same working memory to `deform_conv_backward_parameters` next.
    """
    arguments = _arguments(input, weight, offset, options)
    grads = torch.ops.torchvision._deform_conv2d_backward(widen(gradOutput), *arguments)
    gradInput.copy_(grads[0])
    gradOffset.copy_(_clear_outside(grads[2], *arguments))
    columns.resize_(weight.shape).copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    **options: Any,
) -> None:
    """Adds `scale` times the gradient of `deform_conv_forward` by `weight` to `gradWeight`."""
    grad_weight = columns
    if columns.shape != gradWeight.shape:  # deform_conv_backward_input has not run before
        # The values of the weight do not enter its own gradient, only its shape does.
        arguments = _arguments(input, gradWeight, offset, options)
        backward = torch.ops.torchvision._deform_conv2d_backward
        grad_weight = backward(widen(gradOutput), *arguments)[1]
    gradWeight += options["scale"] * grad_weight.to(gradWeight.dtype)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    **options: Any,
) -> None:
    """`deform_conv_forward` with each sample scaled by a learned factor.

    The factors, `mask`, are `(B, deformable_group * kH * kW, H_out, W_out)`; they and `offset` may
    be of a larger map, see `_leading_values`. `bias`, `(C_out,)`, is read where `with_bias` of the
    options, which have longer names here.
    """
    offset, mask = _leading_values(offset, output), _leading_values(mask, output)
    arguments = _arguments(input, weight, offset, options, mask, bias)
    output.copy_(torch.ops.torchvision.deform_conv2d(*arguments))


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
    **options: Any,
) -> None:
    """Writes the gradients of `modulated_deform_conv_forward`."""
    offset, mask = _leading_values(offset, grad_output), _leading_values(mask, grad_output)
    arguments = _arguments(input, weight, offset, options, mask, bias)
    grads = torch.ops.torchvision._deform_conv2d_backward(widen(grad_output), *arguments)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    _copy_leading_values(grad_offset, _clear_outside(grads[2], *arguments))
    _copy_leading_values(grad_mask, grads[3])
    if options["with_bias"]:
        grad_bias.copy_(grads[4])


def _arguments(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    options: dict[str, Any],
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Any, ...]:
    """The arguments of torchvision's operator: tensors, geometry, and whether there is a mask."""
    names = GEOMETRY if mask is None else MODULATED_GEOMETRY
    input, weight, offset = widen(input), widen(weight), widen(offset)
    given = input.new_zeros(len(input), 1) if mask is None else widen(mask)  # else unused
    if bias is None or not options["with_bias"]:
        bias = input.new_zeros(len(weight))
    geometry = (options[name] for name in names)
    return (input, weight, offset, given, widen(bias), *geometry, mask is not None)


def _clear_outside(
    grad_offset: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    *geometry: int,
) -> Tensor:
    """Offsets of samples at least one cell outside the map have no gradient, as in mmcv.

    torchvision's have one where a sample is exactly one cell outside: a sample nearer to the map
    would read it. Untrained offsets are 0, so with padding of 1 many samples are there.

    Source: `get_coordinate_weight` and its callers in mmcv's `csrc/pytorch/cpu/deform_conv.cpp`.
    """
    stride, padding, dilation = geometry[0:2], geometry[2:4], geometry[4:6]
    kernel, out_size = weight.shape[2:], offset.shape[2:]
    shifts = offset.unflatten(1, (-1, *kernel, 2))  # (B, groups, kH, kW, 2, H_out, W_out)
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

    Raises:
        ValueError: There are fewer values than places.
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
