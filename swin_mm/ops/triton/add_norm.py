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

from swin_mm.ops import reference
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.triton import rows
from swin_mm.ops.triton.rows import (
    CHANGING,
    Settings,
    count_rows,
    dtype_of,
    grad_through_norm,
    load_keep,
    load_vector,
    locate_rows,
    measure_rows,
    store_partial,
)


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
        mean, rstd = measure_rows(total, mask, eps, CHANNELS)
        weight = load_vector(weight_ptr, CHANNELS, BLOCK_C)
        out = (total - mean[:, None]) * rstd[:, None] * weight[None, :]
        out += load_vector(bias_ptr, CHANNELS, BLOCK_C)[None, :]
        tl.store(out_ptr + offset, out.to(out_ptr.dtype.element_ty), mask=mask)
        tl.store(stats_ptr + row, mean, mask=row < num_rows)
        tl.store(stats_ptr + num_rows + row, rstd, mask=row < num_rows)


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
            mean = tl.load(stats_ptr + row, mask=row < num_rows, other=0.0)
            rstd = tl.load(stats_ptr + num_rows + row, mask=row < num_rows, other=0.0)
            normed = tl.where(mask, (saved - mean[:, None]) * rstd[:, None], 0.0)
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
        channels = like.shape[-1]
        rows.launch_forward(
            forward_kernel,
            (x, value, branch_bias, noise, weight, bias, total, out, stats),
            (num_rows, rows_per_sample),
            settings[:2],
            channels,
            channels,
        )
        ctx.settings = settings
        ctx.dtypes = [dtype_of(t) for t in (x, value, branch_bias, noise, weight, bias)]
        ctx.set_materialize_grads(False)
        saved = like if total is None else total
        saved_bias = branch_bias if x is None else None
        ctx.save_for_backward(saved, saved_bias, noise, weight, bias, stats)
        return total, out

    @staticmethod
    def backward(ctx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return *rows.run_backward(ctx, grads, _launch_backward, _differentiable_backward), None


def _launch_backward(ctx, saved, saved_bias, noise, weight, bias, stats, grad_total, grad_out):
    """Gradients of `x`, value, branch bias, noise, weight and bias, where there are such."""
    grad_total, grad_out = (None if g is None else g.contiguous() for g in (grad_total, grad_out))
    channels = saved.shape[-1]
    num_rows, rows_per_sample = count_rows(saved)
    x_dtype, value_dtype = ctx.dtypes[:2]
    grad_x = grad_value = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.empty_like(saved, dtype=x_dtype)
    is_same = grad_x is not None and x_dtype == value_dtype and noise is None
    if ctx.needs_input_grad[1] and not is_same:
        grad_value = torch.empty_like(saved, dtype=value_dtype)
    tensors = saved, saved_bias, noise, weight, stats, grad_total, grad_out, grad_x, grad_value
    sizes, numbers = (num_rows, rows_per_sample), ctx.settings[:1]
    sums = rows.launch_backward(backward_kernel, tensors, sizes, numbers, channels, channels, 3)
    grad_weight, grad_bias, grad_branch_bias = sums
    grad_norm = (None, None) if grad_out is None else (grad_weight, grad_bias)
    return grad_x, grad_x if is_same else grad_value, grad_branch_bias, None, *grad_norm


def _differentiable_backward(
    ctx, saved, saved_bias, noise, weight, bias, stats, grad_total, grad_out
):
    """The same by the definition, differentiable.

    Where there is an `x`, what was saved is the sum, through which `x` and branch are reached.
    """
    grad = grad_weight = grad_bias = grad_branch_bias = None
    keep_prob, eps, dtype = ctx.settings
    if grad_out is not None:

        def compute(saved, saved_bias, weight, bias):
            branch, norm = Branch(saved, saved_bias), Norm(weight, bias, eps)
            return reference.add_norm(None, branch, norm, dtype)

        inputs = saved, saved_bias, weight, bias
        needed = [tensor is not None for tensor in inputs]
        found = reference.differentiate(compute, inputs, needed, (None, grad_out))
        grad, grad_branch_bias, grad_weight, grad_bias = found
    if grad_total is not None:
        grad = grad_total if grad is None else grad + grad_total
    assert grad is not None  # of one of the outputs at least
    grad_value = grad
    if noise is not None:
        grad_value = grad * Branch(grad, None, noise, keep_prob).drop_path_scale()
    if ctx.dtypes[0] is not None:
        grad_branch_bias = grad_value.sum((0, 1, 2), dtype=torch.float32)
    return grad, grad_value, grad_branch_bias, None, grad_weight, grad_bias
