"""Window attention in Triton, in autograd and in compiled code.

Eager calls launch kernels from an `autograd.Function`, which costs the host less than operators of
`torch.library`. Compiled code meets such operators, so that no compiler looks into the launches.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from swin_mm.ops.setting import setting_of
from swin_mm.ops.triton import launch
from swin_mm.ops.triton.launch import Problem
from swin_mm.ops.triton.support import refuse_second_gradient, why_not_attention


def window_attention(
    qkv: Tensor,
    rel_pos_bias: Tensor,
    pad_token: Tensor | None,
    *,
    num_heads: int,
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Same contract as `swin_mm.ops.window_attention`.

    Raises:
        ValueError: When the kernels cannot take these tensors.
    """
    setting = setting_of(qkv, needs_grad=False)
    reason = why_not_attention(setting, qkv.shape[-1] // (3 * num_heads), dropout)
    if reason is not None:
        raise ValueError(f"attn_backend='triton' cannot run: {reason}; 'auto' uses another")
    sizes = num_heads, *window_size, *shift_size
    problem = Problem.of_numbers(sizes, float(scale))
    return _WindowAttention.apply(qkv, rel_pos_bias, pad_token, problem)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, qkv: Tensor, rel_pos_bias: Tensor, pad_token: Tensor | None, problem: Problem
    ) -> Tensor:
        ctx.problem = problem
        ctx.save_for_backward(qkv, rel_pos_bias, pad_token)
        if torch.compiler.is_compiling():
            return _forward_op(qkv, rel_pos_bias, pad_token, *problem.to_numbers())
        return launch.forward(qkv, rel_pos_bias, pad_token, problem)

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors  # read once: recomputed activations are given out once
        needed = ctx.needs_input_grad[:3]
        if torch.compiler.is_compiling():
            grads = _backward_op(grad_out, *inputs, *ctx.problem.to_numbers())
        else:
            refuse_second_gradient()
            qkv, rel_pos_bias, pad_token = inputs
            grads = launch.backward(grad_out, qkv, rel_pos_bias, pad_token, ctx.problem)
        cast = [g.to(t.dtype) if n else None for g, t, n in zip(grads, inputs, needed, strict=True)]
        return *cast, None


@torch.library.custom_op("swin_mm::window_attention_forward", mutates_args=())
def _forward_op(
    qkv: Tensor, rel_pos_bias: Tensor, pad_token: Tensor | None, sizes: Sequence[int], scale: float
) -> Tensor:
    return launch.forward(qkv, rel_pos_bias, pad_token, Problem.of_numbers(sizes, scale))


@_forward_op.register_fake
def _(qkv, *_):
    return qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)


@torch.library.custom_op("swin_mm::window_attention_backward", mutates_args=())
def _backward_op(
    grad_out: Tensor,
    qkv: Tensor,
    rel_pos_bias: Tensor,
    pad_token: Tensor | None,
    sizes: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    problem = Problem.of_numbers(sizes, scale)
    return launch.backward(grad_out, qkv, rel_pos_bias, pad_token, problem)


@_backward_op.register_fake
def _(grad_out, qkv, rel_pos_bias, pad_token, *_):
    grad_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    grad_bias = torch.empty(rel_pos_bias.shape, dtype=torch.float32, device=qkv.device)
    return grad_qkv, grad_bias, qkv.new_empty(qkv.shape[3], dtype=torch.float32)
