"""Residual sum and layer norm in one pass: `t = x + keep * (value + b)`, `out = norm(t)`.

Forward reads `x` and the branch, and writes the sum and, in its own dtype, the normalised map; one
of `x`, the branch and the norm may be missing. It saves the sum (where there is no `x`, the branch)
and mean and reciprocal standard deviation of each row. Backward adds the gradients of sum and norm
and writes those of `x` and branch; gradients of weight and biases are sums over rows, see `rows`.

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
    x_ptr,  # (R, C), or None
    value_ptr,  # (R, C), or None
    branch_bias_ptr,  # (C,), or None
    noise_ptr,  # (B,), or None
    weight_ptr,  # (C,), or None
    bias_ptr,  # (C,), or None
    total_ptr,  # (R, C), or None
    out_ptr,  # (R, C), or None
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
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    if value_ptr is not None:
        total += tl.load(value_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if branch_bias_ptr is not None:
            total += load_vector(branch_bias_ptr, CHANNELS, BLOCK_C)[None, :]
        if noise_ptr is not None:
            total *= load_keep(noise_ptr, row, num_rows, rows_per_sample, keep_prob)[:, None]
    if x_ptr is not None:
        total += tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if total_ptr is not None:
        narrow = total.to(total_ptr.dtype.element_ty)
        tl.store(total_ptr + offset, narrow, mask=mask)
        total = narrow.to(tl.float32)  # what backward will see
    if out_ptr is not None:
        total = tl.where(mask, total, 0.0)
        out = normalise_rows(
            total, mask, row, num_rows, eps, weight_ptr, bias_ptr, stats_ptr, CHANNELS, BLOCK_C
        )
        tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=CHANGING)
def backward_kernel(
    saved_ptr,  # (R, C), the sum, or the branch's value where `saved_bias_ptr` is to be added
    saved_bias_ptr,  # (C,), or None
    noise_ptr,  # (B,), or None
    weight_ptr,  # (C,), or None
    stats_ptr,  # (2, R)
    grad_total_ptr,  # (R, C), or None
    grad_out_ptr,  # (R, C), or None
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
    if grad_out_ptr is not None:
        weight = load_vector(weight_ptr, CHANNELS, BLOCK_C)
    for tile in tl.range(program, tl.cdiv(num_rows, BLOCK_R), num_programs):
        row, offset, mask = locate_rows(tile, num_rows, CHANNELS, BLOCK_R, BLOCK_C)
        grad = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
        if grad_out_ptr is not None:
            saved = tl.load(saved_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            if saved_bias_ptr is not None:
                saved += load_vector(saved_bias_ptr, CHANNELS, BLOCK_C)[None, :]
            normed, rstd = normalise_again(saved, mask, row, num_rows, stats_ptr)
            grad_out = tl.load(grad_out_ptr + offset, mask=mask, other=0.0).to(tl.float32)
            grad_weight += tl.sum(grad_out * normed, 0)
            grad_bias += tl.sum(grad_out, 0)
            grad += grad_through_norm(grad_out * weight[None, :], normed, rstd, CHANNELS)
        if grad_total_ptr is not None:
            grad += tl.load(grad_total_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if grad_x_ptr is not None:
            tl.store(grad_x_ptr + offset, grad.to(grad_x_ptr.dtype.element_ty), mask=mask)
        if noise_ptr is not None:
            grad *= load_keep(noise_ptr, row, num_rows, rows_per_sample, keep_prob)[:, None]
        if grad_value_ptr is not None:
            narrow = grad.to(grad_value_ptr.dtype.element_ty)
            tl.store(grad_value_ptr + offset, narrow, mask=mask)
        grad_branch_bias += tl.sum(tl.where(mask, grad, 0.0), 0)
    index = program.to(tl.int64) * 3
    store_partial(partial_ptr, index, grad_weight, CHANNELS, BLOCK_C)
    store_partial(partial_ptr, index + 1, grad_bias, CHANNELS, BLOCK_C)
    store_partial(partial_ptr, index + 2, grad_branch_bias, CHANNELS, BLOCK_C)


def add_norm(
    x: Tensor | None, branch: Branch | None, norm: Norm | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Same contract as `swin_mm.ops.reference.add_norm`."""
    value, branch_bias, noise, keep_prob = branch or (None, None, None, 1.0)
    weight, bias, eps = norm or (None, None, 0.0)
    settings = Settings(keep_prob, eps, dtype)
    total, out = _AddNorm.apply(x, value, branch_bias, noise, weight, bias, settings)
    return (x if branch is None else total), out


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value, branch_bias, noise, weight, bias, settings: Settings):
        x, value = (None if tensor is None else tensor.contiguous() for tensor in (x, value))
        like = value if x is None else x
        num_rows, rows_per_sample = count_rows(like)
        total = out = None
        if x is not None and value is not None:
            total = torch.empty_like(x, dtype=torch.promote_types(x.dtype, value.dtype))
        if weight is not None:
            out = torch.empty_like(like, dtype=settings.dtype)
        stats = like.new_empty((2, num_rows), dtype=torch.float32)
        inputs = x, value, branch_bias, noise, weight, bias
        sizes, tensors = (num_rows, rows_per_sample), (*inputs, total, out, stats)
        rows.launch_forward(forward_kernel, tensors, sizes, settings[:2], like.shape[-1])
        ctx.settings = settings
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in inputs]
        ctx.set_materialize_grads(False)
        saved = like if total is None else total
        saved_bias = branch_bias if x is None else None
        ctx.save_for_backward(saved, saved_bias, noise, weight, stats)
        return total, out

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_gradient()
        saved, *others = ctx.saved_tensors  # read once: recomputed activations are given out once
        grad_total, grad_out = (None if g is None else g.contiguous() for g in grads)
        if grad_total is None and grad_out is None:
            return (None,) * 7
        x_dtype, value_dtype = ctx.dtypes[:2]
        grad_x = grad_value = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(saved, dtype=x_dtype)
        is_same = grad_x is not None and x_dtype == value_dtype and others[1] is None  # no noise
        if ctx.needs_input_grad[1] and not is_same:
            grad_value = torch.empty_like(saved, dtype=value_dtype)
        tensors = saved, *others, grad_total, grad_out, grad_x, grad_value
        sizes, numbers = count_rows(saved), ctx.settings[:1]
        sums = rows.launch_backward(backward_kernel, tensors, sizes, numbers, 3, saved.shape[-1])
        grad_weight, grad_bias, grad_branch_bias = sums
        grad_norm = (None, None) if grad_out is None else (grad_weight, grad_bias)
        grad_branch = grad_x if is_same else grad_value, grad_branch_bias, None
        return *cast_gradients(ctx, (grad_x, *grad_branch, *grad_norm)), None
