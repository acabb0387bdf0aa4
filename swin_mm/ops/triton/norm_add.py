"""Layer norm and residual sum of V2 in one pass: `t = x + keep * norm(value + b)`.

Forward reads `x` and the branch, and writes the sum, and a copy in the dtype that the next layer
reads where that is another. It saves the branch, and mean and reciprocal standard deviation of each
row. Backward adds the gradients of sum and copy and writes those of `x` and branch; gradients of
weight and biases are sums over rows, see `rows`.

Inputs and outputs are float32, float16 or bfloat16, each its own; arithmetic is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.triton import rows
from swin_mm.ops.triton.rows import (
    CHANGING,
    Settings,
    cast_gradients,
    count_rows,
    grad_through_norm,
    load_keep,
    load_vector,
    locate_rows,
    normalise_again,
    normalise_rows,
    store_partial,
)
from swin_mm.ops.triton.support import refuse_second_gradient


@triton.jit(do_not_specialize=CHANGING)
def forward_kernel(
    x_ptr,  # (R, C)
    value_ptr,  # (R, C)
    branch_bias_ptr,  # (C,), or None
    noise_ptr,  # (B,), or None
    weight_ptr,  # (C,)
    bias_ptr,  # (C,)
    total_ptr,  # (R, C)
    copy_ptr,  # (R, C), or None
    stats_ptr,  # (2, R), mean and reciprocal standard deviation
    num_rows,  # R
    rows_per_sample,
    keep_prob,
    eps,
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row, offset, mask = locate_rows(tl.program_id(0), num_rows, CHANNELS, BLOCK_R, BLOCK_C)
    value = tl.load(value_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if branch_bias_ptr is not None:
        value += load_vector(branch_bias_ptr, CHANNELS, BLOCK_C)[None, :]
    value = tl.where(mask, value, 0.0)
    total = normalise_rows(
        value, mask, row, num_rows, eps, weight_ptr, bias_ptr, stats_ptr, CHANNELS, BLOCK_C
    )
    if noise_ptr is not None:
        total *= load_keep(noise_ptr, row, num_rows, rows_per_sample, keep_prob)[:, None]
    total += tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.store(total_ptr + offset, total.to(total_ptr.dtype.element_ty), mask=mask)
    if copy_ptr is not None:
        tl.store(copy_ptr + offset, total.to(copy_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=CHANGING)
def backward_kernel(
    value_ptr,  # (R, C)
    branch_bias_ptr,  # (C,), or None
    noise_ptr,  # (B,), or None
    weight_ptr,  # (C,)
    stats_ptr,  # (2, R)
    grad_total_ptr,  # (R, C), or None
    grad_copy_ptr,  # (R, C), or None
    grad_x_ptr,  # (R, C), or None
    grad_value_ptr,  # (R, C), or None
    partial_ptr,  # (P, 3, C), sums of P programs for weight, bias and the branch's bias
    num_rows,  # R
    rows_per_sample,
    keep_prob,
    num_programs,  # P
    CHANNELS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    program = tl.program_id(0)
    grad_weight = tl.zeros((BLOCK_C,), tl.float32)
    grad_bias = tl.zeros((BLOCK_C,), tl.float32)
    grad_branch_bias = tl.zeros((BLOCK_C,), tl.float32)
    weight = load_vector(weight_ptr, CHANNELS, BLOCK_C)
    for tile in tl.range(program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        row, offset, mask = locate_rows(tile, num_rows, CHANNELS, BLOCK_R, BLOCK_C)
        grad = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
        if grad_total_ptr is not None:
            grad += tl.load(grad_total_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if grad_copy_ptr is not None:
            grad += tl.load(grad_copy_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if grad_x_ptr is not None:
            tl.store(grad_x_ptr + offset, grad.to(grad_x_ptr.dtype.element_ty), mask=mask)
        if noise_ptr is not None:
            grad *= load_keep(noise_ptr, row, num_rows, rows_per_sample, keep_prob)[:, None]
        value = tl.load(value_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if branch_bias_ptr is not None:
            value += load_vector(branch_bias_ptr, CHANNELS, BLOCK_C)[None, :]
        normed, rstd = normalise_again(value, mask, row, num_rows, stats_ptr)
        grad_weight += tl.sum(grad * normed, 0)
        grad_bias += tl.sum(grad, 0)
        grad = grad_through_norm(grad * weight[None, :], normed, rstd, CHANNELS)
        if grad_value_ptr is not None:
            narrow = grad.to(grad_value_ptr.dtype.element_ty)
            tl.store(grad_value_ptr + offset, narrow, mask=mask)
        grad_branch_bias += tl.sum(tl.where(mask, grad, 0.0), 0)
    index = program.to(tl.int64) * 3
    store_partial(partial_ptr, index, grad_weight, CHANNELS, BLOCK_C)
    store_partial(partial_ptr, index + 1, grad_bias, CHANNELS, BLOCK_C)
    store_partial(partial_ptr, index + 2, grad_branch_bias, CHANNELS, BLOCK_C)


def norm_add(x: Tensor, branch: Branch, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Same contract as `swin_mm.ops.reference.norm_add`."""
    value, branch_bias, noise, keep_prob = branch
    settings = Settings(keep_prob, norm.eps, dtype)
    total, copy = _NormAdd.apply(x, value, branch_bias, noise, *norm[:2], settings)
    return total, total if copy is None else copy


class _NormAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, branch_bias, noise, weight, bias, settings: Settings):
        x, value = x.contiguous(), value.contiguous()
        num_rows, rows_per_sample = count_rows(x)
        total = torch.empty_like(x)
        copy = None
        if settings.dtype != x.dtype:
            copy = torch.empty_like(x, dtype=settings.dtype)
        stats = x.new_empty((2, num_rows), dtype=torch.float32)
        inputs = x, value, branch_bias, noise, weight, bias
        sizes, tensors = (num_rows, rows_per_sample), (*inputs, total, copy, stats)
        rows.launch_forward(forward_kernel, tensors, sizes, settings[:2], x.shape[-1])
        ctx.settings = settings
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(value, branch_bias, noise, weight, stats)
        return total, copy

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_gradient()
        value, *others = ctx.saved_tensors  # read once: recomputed activations are given out once
        grad_total, grad_copy = (None if g is None else g.contiguous() for g in grads)
        if grad_total is None and grad_copy is None:
            return (None,) * 7
        grad_x = grad_value = None
        is_sum = grad_copy is not None  # else the gradient of `x` is that of the sum
        if ctx.needs_input_grad[0] and is_sum:
            grad_x = torch.empty_like(value, dtype=ctx.dtypes[0])
        if ctx.needs_input_grad[1]:
            grad_value = torch.empty_like(value)
        tensors = value, *others, grad_total, grad_copy, grad_x, grad_value
        sizes, numbers = count_rows(value), ctx.settings[:1]
        sums = rows.launch_backward(backward_kernel, tensors, sizes, numbers, 3, value.shape[-1])
        grad_weight, grad_bias, grad_branch_bias = sums
        grad_branch_bias = None if others[0] is None else grad_branch_bias
        grad_x = grad_x if is_sum else grad_total
        found = grad_x, grad_value, grad_branch_bias, None, grad_weight, grad_bias
        return *cast_gradients(ctx, found), None
