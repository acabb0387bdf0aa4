"""The MLP of a block in C++, for float32 on the CPU, in autograd."""

import ctypes
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.cpp.build import build_refusal, load_library, pointer, run_parallel
from swin_mm.ops.transforms import is_plain, opaque_refusal

NAME = "mlp"
CHUNK = 256  # tokens whose hidden channels are in the cache at a time


class _Problem(ctypes.Structure):
    """Mirrors `Problem` in mlp.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("tokens", "channels", "hidden", "out_channels")),
        *((name, ctypes.c_int64) for name in ("threads", "chunk")),
        *((name, ctypes.c_void_p) for name in ("x", "weight1", "bias1", "weight2", "bias2")),
        *((name, ctypes.c_void_p) for name in ("residual", "out", "kept", "grad_hidden")),
        *((name, ctypes.c_void_p) for name in ("activated", "run_parallel")),
    ]


def refusal(x: Tensor, *parameters: Tensor | None) -> str | None:
    """Tells why the kernels cannot run, or `None` where they can.

    Args:
        x: `(..., C)`.
        parameters: Both weights and biases, `(hidden, C)`, `(hidden,)`, `(C_out, hidden)`,
            `(C_out,)`.
    """
    given = (x, *parameters)
    if x.device.type != "cpu":
        return "it runs on the CPU"
    if any(t is None for t in parameters):
        return "it is for layers with a bias"
    if any(t.dtype != torch.float32 for t in given):
        return f"it is for float32, got {sorted({str(t.dtype) for t in given})}"
    if torch.is_autocast_enabled("cpu"):
        return "autocast chooses the dtype"
    if reason := opaque_refusal():
        return reason
    if not is_plain(*given):
        return "a tensor is of a class of its own"
    return build_refusal(NAME) or _shape_refusal(x, parameters[0].shape[0])


def _shape_refusal(x: Tensor, hidden: int) -> str | None:
    lanes, panel = _widths()
    if hidden % lanes:
        return f"hidden channels must be a multiple of {lanes}, got {hidden}"
    tokens, threads = x.numel() // max(1, x.shape[-1]), torch.get_num_threads()
    if tokens < panel * threads:
        return f"{tokens} tokens are too few for {threads} threads"
    return None


@lru_cache
def _widths() -> tuple[int, int]:
    """Floats of a vector, and tokens of a panel."""
    library = load_library(NAME)
    return library.lanes(), library.panel()


def mlp(
    x: Tensor,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
    residual: Tensor | None = None,
) -> Tensor:
    """Same contract as `swin_mm.ops.mlp.mlp_with_residual`, where `refusal` has none."""
    return _Mlp.apply(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual)


def _readable(x, fc1_weight, fc1_bias, fc2_weight, fc2_bias) -> Tensor:
    return F.linear(F.gelu(F.linear(x, fc1_weight, fc1_bias)), fc2_weight, fc2_bias)


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual) -> Tensor:
        inputs = [t.contiguous() for t in (x, fc1_weight, fc1_bias, fc2_weight, fc2_bias)]
        residual = None if residual is None else residual.contiguous()
        out = x.new_empty(*x.shape[:-1], fc2_weight.shape[0])
        kept = None
        if any(ctx.needs_input_grad[:4]):
            kept = x.new_empty(*x.shape[:-1], fc1_weight.shape[0])
        problem = _build_problem(inputs)
        problem.residual, problem.out, problem.kept = map(pointer, (residual, out, kept))
        load_library(NAME).mlp_forward(ctypes.byref(problem))
        ctx.save_for_backward(*inputs, kept)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, kept = ctx.saved_tensors  # read once: recomputed ones are given out once
        grad_residual = grad_out if ctx.needs_input_grad[5] else None
        needed = ctx.needs_input_grad[:5]
        if torch.is_grad_enabled():  # by create_graph=True
            return *_differentiate(inputs, needed, grad_out), grad_residual
        return *_compute_grads(inputs, kept, needed, grad_out.contiguous()), grad_residual


def _compute_grads(inputs, kept, needed, grad_out: Tensor) -> list[Tensor | None]:
    x, weight1, _, weight2, _ = inputs
    x, grad_rows = x.flatten(0, -2), grad_out.flatten(0, -2)
    grad_x = grad_weight1 = grad_bias1 = grad_weight2 = None
    if any(needed[:4]):
        grad_hidden = grad_rows @ weight2
        activated = torch.empty_like(kept) if needed[3] else None
        problem = _build_problem(inputs)
        problem.kept, problem.grad_hidden = pointer(kept), pointer(grad_hidden)
        problem.activated = pointer(activated)
        load_library(NAME).mlp_activate_backward(ctypes.byref(problem))
        grad_x = (grad_hidden @ weight1).view_as(inputs[0]) if needed[0] else None
        grad_weight1 = grad_hidden.T @ x if needed[1] else None
        grad_bias1 = grad_hidden.sum(0) if needed[2] else None
        grad_weight2 = grad_rows.T @ activated.flatten(0, -2) if needed[3] else None
    grad_bias2 = grad_rows.sum(0) if needed[4] else None
    return [grad_x, grad_weight1, grad_bias1, grad_weight2, grad_bias2]


def _differentiate(inputs: list[Tensor], needed: tuple[bool, ...], grad_out: Tensor) -> list:
    """Gradients that can be differentiated again."""
    wanted = [t for t, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(_readable(*inputs), wanted, grad_out, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needed]


def _build_problem(inputs: list[Tensor]) -> _Problem:
    x, weight1, bias1, weight2, bias2 = inputs
    tokens, panel, threads = math.prod(x.shape[:-1]), _widths()[1], torch.get_num_threads()
    return _Problem(
        tokens=tokens,
        channels=x.shape[-1],
        hidden=weight1.shape[0],
        out_channels=weight2.shape[0],
        threads=threads,
        chunk=max(1, min(CHUNK, -(-tokens // threads)) // panel),
        x=pointer(x),
        weight1=pointer(weight1),
        bias1=pointer(bias1),
        weight2=pointer(weight2),
        bias2=pointer(bias2),
        run_parallel=run_parallel(),
    )
