"""Linear layers and MLPs in C++, for float32 on the CPU, in autograd."""

import ctypes
import math
from functools import lru_cache

import torch
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.cpp.build import build_refusal, load_library, pointer, run_parallel
from swin_mm.ops.transforms import is_plain, opaque_refusal

NAME = "linear"
CHUNK = 256  # tokens that a thread takes at a time, so that they stay in the cache


class _Problem(ctypes.Structure):
    """Mirrors `Problem` in linear.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("tokens", "channels", "hidden", "out_channels")),
        *((name, ctypes.c_int64) for name in ("threads", "chunk")),
        *((name, ctypes.c_void_p) for name in ("x", "weight1", "bias1", "weight2", "bias2")),
        *((name, ctypes.c_void_p) for name in ("residual", "out", "kept", "grad_hidden")),
        *((name, ctypes.c_void_p) for name in ("activated", "run_parallel")),
    ]


def refusal(x: Tensor, *others: Tensor | None) -> str | None:
    """Tells why the kernels cannot run, or `None` where they can.

    It is asked before every layer, so what refuses most of them is looked at first.

    Args:
        x: `(..., C)`.
        others: Weights, biases and residual; `None` for none.
    """
    if x.device.type != "cpu":
        return "it runs on the CPU"
    given = [x, *(t for t in others if t is not None)]
    if any(t.dtype != torch.float32 for t in given):
        return f"it is for float32, got {sorted({str(t.dtype) for t in given})}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the dtype"
    if reason := opaque_refusal():
        return reason
    if not is_plain(*given):
        return "a tensor is of a class of its own"
    return build_refusal(NAME) or _size_refusal(x)


def mlp_refusal(x: Tensor, *parameters: Tensor | None) -> str | None:
    """The same for an MLP.

    Args:
        x: `(..., C)`.
        parameters: `(hidden, C)`, `(hidden,)`, `(C_out, hidden)`, `(C_out,)`.
    """
    if any(t is None for t in parameters):
        return "it is for layers with a bias"
    reason = refusal(x, *parameters)
    if reason is None and parameters[0].shape[0] % _widths()[0]:
        hidden = parameters[0].shape[0]
        return f"hidden channels must be a multiple of {_widths()[0]}, got {hidden}"
    return reason


def _size_refusal(x: Tensor) -> str | None:
    tokens, threads = math.prod(x.shape[:-1]), torch.get_num_threads()
    if tokens < _widths()[1] * threads:
        return f"{tokens} tokens are too few for {threads} threads"
    return None


@lru_cache
def _widths() -> tuple[int, int]:
    """Floats of a vector, and tokens of a panel."""
    library = load_library(NAME)
    return library.lanes(), library.panel()


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, residual: Tensor | None = None
) -> Tensor:
    """`x weightᵀ + bias + residual`, where `refusal` has none.

    Args:
        x: `(..., C_in)`.
        weight: `(C_out, C_in)`.
        bias: `(C_out,)`; `None` for none.
        residual: `(..., C_out)`; `None` for none.

    Returns:
        `(..., C_out)`.
    """
    return _Linear.apply(x, weight, bias, residual)


def mlp(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Same contract as `swin_mm.ops.mlp.mlp_with_residual`, where `mlp_refusal` has none."""
    return _Mlp.apply(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual) -> Tensor:
        inputs = x.contiguous(), weight.contiguous()
        out = _run_forward(inputs[0], None, None, inputs[1], bias, residual, None)
        ctx.save_for_backward(*inputs)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        rows = grad_out.flatten(0, -2)
        return (
            grad_out @ weight if needed[0] else None,
            rows.T @ x.flatten(0, -2) if needed[1] else None,
            rows.sum(0) if needed[2] else None,
            grad_out if needed[3] else None,
        )


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual) -> Tensor:
        inputs = [t.contiguous() for t in (x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)]
        kept = None
        if any(ctx.needs_input_grad[:4]):
            kept = x.new_empty(*x.shape[:-1], fc1_weight.shape[0])
        out = _run_forward(*inputs, residual, kept)
        ctx.save_for_backward(*inputs, kept)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors  # read once: recomputed ones are given out once
        grad_residual = grad_out if ctx.needs_input_grad[5] else None
        needed = ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():  # by create_graph=True
            grads = reference.differentiate(_readable_mlp, inputs, needed, grad_out)
            return *grads, grad_residual
        return *_compute_grads(inputs, kept, needed, grad_out), grad_residual


def _readable_mlp(x, weight1, bias1, weight2, bias2) -> Tensor:
    return reference.mlp(x, weight1, bias1, weight2, x.dtype) + bias2


def _compute_grads(inputs, kept, needed, grad_out: Tensor) -> list[Tensor | None]:
    x, weight1, _, weight2, _ = inputs
    rows = grad_out.flatten(0, -2)
    grad_x = grad_weight1 = grad_bias1 = grad_weight2 = None
    if any(needed[:4]):
        grad_hidden = rows @ weight2
        activated = torch.empty_like(kept) if needed[3] else None
        problem = _Problem(
            tokens=len(grad_hidden),
            hidden=weight1.shape[0],
            threads=torch.get_num_threads(),
            kept=pointer(kept),
            grad_hidden=pointer(grad_hidden),
            activated=pointer(activated),
            run_parallel=run_parallel(),
        )
        load_library(NAME).activate_backward(ctypes.byref(problem))
        grad_x = (grad_hidden @ weight1).view_as(x) if needed[0] else None
        grad_weight1 = grad_hidden.T @ x.flatten(0, -2) if needed[1] else None
        grad_bias1 = grad_hidden.sum(0) if needed[2] else None
        grad_weight2 = rows.T @ activated.flatten(0, -2) if needed[3] else None
    grad_bias2 = rows.sum(0) if needed[4] else None
    return [grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2]


def _run_forward(x, weight1, bias1, weight2, bias2, residual, kept: Tensor | None) -> Tensor:
    """One layer, or two where there is a first; `x` and weights are contiguous."""
    tokens, panel, threads = math.prod(x.shape[:-1]), _widths()[1], torch.get_num_threads()
    out = x.new_empty(*x.shape[:-1], weight2.shape[0])
    bias2, residual = (None if t is None else t.contiguous() for t in (bias2, residual))
    problem = _Problem(
        tokens=tokens,
        channels=x.shape[-1],
        hidden=0 if weight1 is None else weight1.shape[0],
        out_channels=weight2.shape[0],
        threads=threads,
        chunk=max(1, min(CHUNK, -(-tokens // threads)) // panel),
        x=pointer(x),
        weight1=pointer(weight1),
        bias1=pointer(bias1),
        weight2=pointer(weight2),
        bias2=pointer(bias2),
        residual=pointer(residual),
        out=pointer(out),
        kept=pointer(kept),
        run_parallel=run_parallel(),
    )
    load_library(NAME).linear_forward(ctypes.byref(problem))
    return out
