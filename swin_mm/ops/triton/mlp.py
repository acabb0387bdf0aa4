"""The MLP with bias and GELU in one pass: `gelu(x W1ᵀ + b1) W2ᵀ`.

Products of matrices are PyTorch's. Between them a kernel adds the bias and applies the exact GELU,
`h * (1 + erf(h / sqrt(2))) / 2`. Saved is `x W1ᵀ` in the dtype of the products; backward computes
the GELU again for the second layer's gradient, in the same pass as its derivative and the partial
sums of the bias's gradient, see `rows`.

Inputs and outputs are float32, float16 or bfloat16; arithmetic between the products is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.triton import rows
from swin_mm.ops.triton.rows import CHANGING
from swin_mm.ops.triton.support import refuse_second_gradient

BLOCK_R, BLOCK_C = 16, 128  # of a tile: no row is summed, so none need be whole
SQRT_HALF = tl.constexpr(0.7071067811865476)
INV_SQRT_TAU = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def locate_tile(tile, column, num_rows, CHANNELS: tl.constexpr, BLOCK_R, BLOCK_C):
    """Channels of a tile, and offset and mask of its elements."""
    row = (tile * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)  # offsets may pass 2**31
    channel = column * BLOCK_C + tl.arange(0, BLOCK_C)
    mask = (row < num_rows)[:, None] & (channel < CHANNELS)[None, :]
    return channel, row[:, None] * CHANNELS + channel[None, :], mask


@triton.jit(do_not_specialize=CHANGING)
def forward_kernel(
    product_ptr,  # (R, C)
    bias_ptr,  # (C,), or None
    out_ptr,  # (R, C)
    num_rows,  # R
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    tile, column = tl.program_id(0) // COLUMNS, tl.program_id(0) % COLUMNS
    channel, offset, mask = locate_tile(tile, column, num_rows, CHANNELS, BLOCK_R, BLOCK_C)
    hidden = tl.load(product_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0)
        hidden += bias.to(tl.float32)[None, :]
    out = hidden * (0.5 * (1.0 + tl.erf(hidden * SQRT_HALF)))
    tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=CHANGING)
def backward_kernel(
    product_ptr,  # (R, C)
    bias_ptr,  # (C,), or None
    grad_out_ptr,  # (R, C)
    out_ptr,  # (R, C), what forward wrote
    grad_product_ptr,  # (R, C); may be `grad_out_ptr`
    partial_ptr,  # (P, C), sums of P programs for the bias
    num_rows,  # R
    num_programs,  # P, for each tile across
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    COLUMNS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    program, column = tl.program_id(0) // COLUMNS, tl.program_id(0) % COLUMNS
    grad_bias = tl.zeros((BLOCK_C,), tl.float32)
    channel = column * BLOCK_C + tl.arange(0, BLOCK_C)
    for tile in tl.range(program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        _, offset, mask = locate_tile(tile, column, num_rows, CHANNELS, BLOCK_R, BLOCK_C)
        hidden = tl.load(product_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            bias = tl.load(bias_ptr + channel, mask=channel < CHANNELS, other=0.0)
            hidden += bias.to(tl.float32)[None, :]
        cdf = 0.5 * (1.0 + tl.erf(hidden * SQRT_HALF))
        pdf = tl.exp(-0.5 * hidden * hidden) * INV_SQRT_TAU
        grad = tl.load(grad_out_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        grad *= cdf + hidden * pdf
        tl.store(out_ptr + offset, (hidden * cdf).to(out_ptr.dtype.element_ty), mask=mask)
        narrow = grad.to(grad_product_ptr.dtype.element_ty)
        tl.store(grad_product_ptr + offset, narrow, mask=mask)
        grad_bias += tl.sum(tl.where(mask, grad, 0.0), 0)
    partial_ptr += program.to(tl.int64) * CHANNELS
    tl.store(partial_ptr + channel, grad_bias, mask=channel < CHANNELS)


def mlp(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor | None, fc2_weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """Same contract as `swin_mm.ops.reference.mlp`."""
    return _Mlp.apply(x, fc1_weight, fc1_bias, fc2_weight, dtype)


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, fc1_weight, fc1_bias, fc2_weight, dtype: torch.dtype) -> Tensor:
        # Weights are cast here and not by autocast, whose cache would keep a copy without gradient.
        first, second = fc1_weight.to(dtype), fc2_weight.to(dtype)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)  # (R, C)
        product = flat @ first.T  # (R, hidden)
        hidden = torch.empty_like(product)
        num_rows, channels = product.shape
        programs = triton.cdiv(num_rows, BLOCK_R) * triton.cdiv(channels, BLOCK_C)
        tile = dict(CHANNELS=channels, BLOCK_R=BLOCK_R, BLOCK_C=BLOCK_C)
        rows.launch(forward_kernel, programs, product, fc1_bias, hidden, num_rows, **tile)
        out = hidden @ second.T
        parameters = fc1_weight, fc1_bias, fc2_weight
        ctx.save_for_backward(x, *parameters, flat, product, first, second)
        return out.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_gradient()
        saved = ctx.saved_tensors  # read once: recomputed activations are given out once
        x, fc1_weight, fc1_bias, fc2_weight, flat, product, first, second = saved
        needs_x, needs_first, needs_bias, needs_second, _ = ctx.needs_input_grad
        grad = grad.reshape(-1, grad.shape[-1])  # (R, C_out)
        hidden, grad_product = torch.empty_like(product), grad @ second  # becomes that of `product`
        num_rows, channels = product.shape
        columns = triton.cdiv(channels, BLOCK_C)
        programs = rows.count_programs(triton.cdiv(num_rows, BLOCK_R), product.device, columns)
        partial = rows.new_partials(product, programs, 1, channels)
        rows.launch(
            backward_kernel,
            programs * columns if num_rows else 0,
            *(product, fc1_bias, grad_product, hidden, grad_product, partial),
            *(num_rows, programs),
            CHANNELS=channels,
            BLOCK_R=BLOCK_R,
            BLOCK_C=BLOCK_C,
        )
        return (
            (grad_product @ first).view(x.shape).to(x.dtype) if needs_x else None,
            (grad_product.T @ flat).to(fc1_weight.dtype) if needs_first else None,
            partial.sum((0, 1)).to(fc1_bias.dtype) if needs_bias else None,
            (grad.T @ hidden).to(fc2_weight.dtype) if needs_second else None,
            None,
        )
