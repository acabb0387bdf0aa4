"""Patch merging's gather and layer norm in one pass: `out = norm([x00, x10, x01, x11])`.

Forward reads each token where it is, and writes the normalised join; it saves its input, and mean
and reciprocal standard deviation of each row. Backward gathers again and writes the gradient of
each token at its place: neighbourhoods are disjoint and cover the map. Gradients of weight and bias
are sums over rows, see `rows`.

Inputs and outputs are float32, float16 or bfloat16, each its own; arithmetic is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.reference import MERGE_ORDER, Norm
from swin_mm.ops.triton import rows
from swin_mm.ops.triton.rows import (
    CHANGING,
    cast_gradients,
    count_rows,
    grad_through_norm,
    load_vector,
    locate_rows,
    normalise_again,
    normalise_rows,
    store_partial,
)
from swin_mm.ops.triton.support import refuse_second_gradient

# The kernels take bit 0 of a neighbour's number for its row and bit 1 for its column.
assert tuple((i % 2, i // 2) for i in range(4)) == MERGE_ORDER


@triton.jit
def locate_neighbours(
    row,  # (BLOCK_R,), number of the joined token
    mask,  # (BLOCK_R, BLOCK_C), which channels there are
    height,
    width,
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Offset of each joined channel in `(B, H, W, C)`, and whether the map has such a token."""
    down, across = tl.cdiv(height, 2), tl.cdiv(width, 2)
    channel = tl.arange(0, BLOCK_C)
    neighbour = channel // CHANNELS
    image = row // (down * across)
    line = (row // across % down * 2)[:, None] + (neighbour % 2)[None, :]
    column = (row % across * 2)[:, None] + (neighbour // 2)[None, :]
    token = (image[:, None] * height + line) * width + column
    is_inside = mask & (line < height) & (column < width)
    return token * CHANNELS + (channel % CHANNELS)[None, :], is_inside


@triton.jit(do_not_specialize=CHANGING)
def forward_kernel(
    x_ptr,  # (B, H, W, C)
    weight_ptr,  # (4*C,)
    bias_ptr,  # (4*C,)
    out_ptr,  # (R, 4*C)
    stats_ptr,  # (2, R), mean and reciprocal standard deviation
    num_rows,  # R
    height,
    width,
    eps,
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    JOINED: tl.constexpr = 4 * CHANNELS
    row, offset, mask = locate_rows(tl.program_id(0), num_rows, JOINED, BLOCK_R, BLOCK_C)
    source, is_inside = locate_neighbours(row, mask, height, width, CHANNELS, BLOCK_C)
    joined = tl.load(x_ptr + source, mask=is_inside, other=0.0).to(tl.float32)
    out = normalise_rows(
        joined, mask, row, num_rows, eps, weight_ptr, bias_ptr, stats_ptr, JOINED, BLOCK_C
    )
    tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=CHANGING)
def backward_kernel(
    x_ptr,  # (B, H, W, C)
    weight_ptr,  # (4*C,)
    stats_ptr,  # (2, R)
    grad_out_ptr,  # (R, 4*C)
    grad_x_ptr,  # (B, H, W, C), or None
    partial_ptr,  # (P, 2, 4*C), sums of P programs for weight and bias
    num_rows,  # R
    height,
    width,
    num_programs,  # P
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    JOINED: tl.constexpr = 4 * CHANNELS
    program = tl.program_id(0)
    grad_weight = tl.zeros((BLOCK_C,), tl.float32)
    grad_bias = tl.zeros((BLOCK_C,), tl.float32)
    weight = load_vector(weight_ptr, JOINED, BLOCK_C)
    for tile in tl.range(program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        row, offset, mask = locate_rows(tile, num_rows, JOINED, BLOCK_R, BLOCK_C)
        source, is_inside = locate_neighbours(row, mask, height, width, CHANNELS, BLOCK_C)
        joined = tl.load(x_ptr + source, mask=is_inside, other=0.0).to(tl.float32)
        normed, rstd = normalise_again(joined, mask, row, num_rows, stats_ptr)
        grad = tl.load(grad_out_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        grad_weight += tl.sum(grad * normed, 0)
        grad_bias += tl.sum(grad, 0)
        if grad_x_ptr is not None:
            grad = grad_through_norm(grad * weight[None, :], normed, rstd, JOINED)
            tl.store(grad_x_ptr + source, grad.to(grad_x_ptr.dtype.element_ty), mask=is_inside)
    index = program.to(tl.int64) * 2
    store_partial(partial_ptr, index, grad_weight, JOINED, BLOCK_C)
    store_partial(partial_ptr, index + 1, grad_bias, JOINED, BLOCK_C)


def merge_norm(x: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    """Same contract as `swin_mm.ops.reference.merge_norm`."""
    return _MergeNorm.apply(x, *norm, dtype)


class _MergeNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, eps: float, dtype: torch.dtype) -> Tensor:
        x = x.contiguous()
        batch, height, width, channels = x.shape
        out = x.new_empty((batch, -(-height // 2), -(-width // 2), 4 * channels), dtype=dtype)
        num_rows, _ = count_rows(out)
        stats = x.new_empty((2, num_rows), dtype=torch.float32)
        tensors, sizes = (x, weight, bias, out, stats), (num_rows, height, width)
        rows.launch_forward(forward_kernel, tensors, sizes, (eps,), channels, 4 * channels)
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        ctx.save_for_backward(x, weight, stats)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_gradient()
        x, weight, stats = ctx.saved_tensors  # read once: recomputed ones are given out once
        _, height, width, channels = x.shape
        grad_out = grad_out.contiguous()
        num_rows, _ = count_rows(grad_out)
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        tensors, sizes = (x, weight, stats, grad_out, grad_x), (num_rows, height, width)
        sums = rows.launch_backward(backward_kernel, tensors, sizes, (), 2, channels, 4 * channels)
        return *cast_gradients(ctx, (grad_x, *sums)), None, None
