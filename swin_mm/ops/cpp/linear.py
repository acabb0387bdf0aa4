"""Linear layers and MLPs in C++, with a norm before them, for float32 on the CPU, in autograd."""

import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.cpp.build import build_refusal, load_library, pointer, run_parallel
from swin_mm.ops.reference import Norm
from swin_mm.ops.transforms import is_plain, opaque_refusal

NAME = "linear"
CHUNK = 256  # tokens that a thread takes at a time, so that they stay in the cache
NO_NORM = Norm(None, None, 0.0)


class _Problem(ctypes.Structure):
    """Mirrors `Problem` in linear.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("tokens", "channels", "hidden", "out_channels")),
        *((name, ctypes.c_int64) for name in ("threads", "chunk")),
        *((name, ctypes.c_void_p) for name in ("x", "norm_weight", "norm_bias")),
        *((name, ctypes.c_void_p) for name in ("weight1", "bias1", "weight2", "bias2")),
        *((name, ctypes.c_void_p) for name in ("residual", "out", "kept", "grad_hidden")),
        *((name, ctypes.c_void_p) for name in ("activated", "run_parallel")),
        ("epsilon", ctypes.c_float),
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
        parameters: `(hidden, C)`, `(hidden,)`, `(C_out, hidden)`, `(C_out,)`, and those of a norm.
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
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    norm: Norm | None = None,
) -> Tensor:
    """`norm(x) weightᵀ + bias + residual`, where `refusal` has none.

    The normalised map is not kept for backward, which computes it again.

    Args:
        x: `(..., C_in)`.
        weight: `(C_out, C_in)`.
        bias: `(C_out,)`; `None` for none.
        residual: `(..., C_out)`; `None` for none.
        norm: Of `C_in` channels; `None` for none.

    Returns:
        `(..., C_out)`.
    """
    norm = norm or NO_NORM
    return _Linear.apply(x, weight, bias, norm.weight, norm.bias, residual, norm.eps)


def mlp(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    residual: Tensor | None = None,
    norm: Norm | None = None,
) -> Tensor:
    """Same contract as `swin_mm.ops.mlp.mlp_with_residual`, where `mlp_refusal` has none."""
    norm = norm or NO_NORM
    parameters = fc1_weight, fc1_bias, fc2_weight, fc2_bias, norm.weight, norm.bias
    return _Mlp.apply(x, *parameters, residual, norm.eps)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, norm_weight, norm_bias, residual, eps) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        norm = Norm(norm_weight, norm_bias, eps)
        out = _run_forward(x, norm, None, None, weight, bias, residual, None)
        ctx.eps = eps
        ctx.save_for_backward(x, weight, bias, norm_weight, norm_bias)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        inputs, needed = ctx.saved_tensors, ctx.needs_input_grad[:5]
        grad_residual = grad_out if ctx.needs_input_grad[5] else None
        if torch.is_grad_enabled():  # by create_graph=True
            run = partial(_readable_linear, eps=ctx.eps)
            grads = reference.differentiate(run, inputs, needed, grad_out)
        else:
            grads = _compute_linear_grads(inputs, ctx.eps, needed, grad_out)
        return *grads, grad_residual, None


def _readable_linear(x, weight, bias, norm_weight, norm_bias, eps: float) -> Tensor:
    return F.linear(_normalise(x, Norm(norm_weight, norm_bias, eps))[0], weight, bias)


def _compute_linear_grads(inputs, eps: float, needed, grad_out: Tensor) -> list[Tensor | None]:
    x, weight, _, *norm = inputs
    normed, *moments = _normalise(x, Norm(*norm, eps))
    rows = grad_out.flatten(0, -2)
    grad_normed = grad_out @ weight if needed[0] or any(needed[3:]) else None
    grad_weight = rows.T @ normed.flatten(0, -2) if needed[1] else None
    grad_bias = rows.sum(0) if needed[2] else None
    wanted = needed[0], *needed[3:]
    grad_x, *grad_norm = _normalise_backward(grad_normed, x, norm, moments, wanted)
    return [grad_x, grad_weight, grad_bias, *grad_norm]


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, residual, eps):
        inputs = [t.contiguous() for t in (x, weight1, bias1, weight2, bias2)]
        kept = None
        if any(ctx.needs_input_grad[:4]) or any(ctx.needs_input_grad[5:7]):
            kept = x.new_empty(*x.shape[:-1], weight1.shape[0])
        norm = Norm(norm_weight, norm_bias, eps)
        out = _run_forward(inputs[0], norm, *inputs[1:], residual, kept)
        ctx.eps = eps
        ctx.save_for_backward(*inputs, norm_weight, norm_bias, kept)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors  # read once: recomputed ones are given out once
        grad_residual = grad_out if ctx.needs_input_grad[7] else None
        needed = ctx.needs_input_grad[:7]
        if torch.is_grad_enabled():  # by create_graph=True
            run = partial(_readable_mlp, eps=ctx.eps)
            grads = reference.differentiate(run, inputs, needed, grad_out)
        else:
            grads = _compute_mlp_grads(inputs, ctx.eps, kept, needed, grad_out)
        return *grads, grad_residual, None


def _readable_mlp(x, weight1, bias1, weight2, bias2, norm_weight, norm_bias, eps) -> Tensor:
    normed = _normalise(x, Norm(norm_weight, norm_bias, eps))[0]
    return reference.mlp(normed, weight1, bias1, weight2, x.dtype) + bias2


def _compute_mlp_grads(inputs, eps: float, kept, needed, grad_out: Tensor) -> list[Tensor | None]:
    x, weight1, _, weight2, _, *norm = inputs
    rows = grad_out.flatten(0, -2)
    grad_bias2 = rows.sum(0) if needed[4] else None
    if kept is None:
        return [None, None, None, None, grad_bias2, None, None]
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
    grad_weight2 = rows.T @ activated.flatten(0, -2) if needed[3] else None
    del activated, kept  # before the norm is computed again
    grad_bias1 = grad_hidden.sum(0) if needed[2] else None
    grad_normed = grad_hidden @ weight1 if needed[0] or any(needed[5:]) else None
    normed, *moments = _normalise(x, Norm(*norm, eps))
    grad_weight1 = grad_hidden.T @ normed.flatten(0, -2) if needed[1] else None
    wanted = needed[0], *needed[5:]
    grad_x, *grad_norm = _normalise_backward(grad_normed, x, norm, moments, wanted)
    return [grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2, *grad_norm]


def _normalise(x: Tensor, norm: Norm) -> tuple[Tensor, ...]:
    """The map as the layer sees it, and the moments where it is normalised."""
    if norm.weight is None:
        return (x,)
    return torch.native_layer_norm(x, x.shape[-1:], *norm)


def _normalise_backward(
    grad: Tensor | None, x: Tensor, norm, moments, needed
) -> Sequence[Tensor | None]:
    """Gradients of what is normalised, of the weight and of the bias, from that of the result."""
    if grad is None:
        return None, None, None
    grad = grad.view_as(x)
    if not moments:
        return grad, None, None
    backward = torch.ops.aten.native_layer_norm_backward
    return backward(grad, x, x.shape[-1:], *moments, *norm, needed)


def _run_forward(
    x, norm: Norm, weight1, bias1, weight2, bias2, residual, kept: Tensor | None
) -> Tensor:
    """One layer, or two where there is a first; `x` and weights are contiguous."""
    tokens, panel, threads = math.prod(x.shape[:-1]), _widths()[1], torch.get_num_threads()
    out = x.new_empty(*x.shape[:-1], weight2.shape[0])
    channels, out_channels = x.shape[-1], weight2.shape[0]
    inner = channels if weight1 is None else weight1.shape[0]
    _check("first weight", weight1, (inner, channels))
    _check("first bias", bias1, (inner,))
    _check("weight", weight2, (out_channels, inner))
    _check("bias", bias2, (out_channels,))
    _check("weight of the norm", norm.weight, (channels,))
    _check("bias of the norm", norm.bias, (channels,))
    _check("residual", residual, (*x.shape[:-1], out_channels))
    others = bias2, residual, norm.weight, norm.bias
    others = [None if t is None else t.contiguous() for t in others]  # alive until it has run
    problem = _Problem(
        tokens=tokens,
        channels=x.shape[-1],
        hidden=0 if weight1 is None else weight1.shape[0],
        out_channels=weight2.shape[0],
        threads=threads,
        chunk=max(1, min(CHUNK, -(-tokens // threads)) // panel),
        x=pointer(x),
        norm_weight=pointer(others[2]),
        norm_bias=pointer(others[3]),
        weight1=pointer(weight1),
        bias1=pointer(bias1),
        weight2=pointer(weight2),
        bias2=pointer(others[0]),
        residual=pointer(others[1]),
        out=pointer(out),
        kept=pointer(kept),
        run_parallel=run_parallel(),
        epsilon=norm.eps,
    )
    load_library(NAME).linear_forward(ctypes.byref(problem))
    return out


def _check(name: str, given: Tensor | None, shape: tuple[int, ...]) -> None:
    if given is not None and given.shape != shape:
        raise ValueError(f"the {name} must be {shape}, got {tuple(given.shape)}")
