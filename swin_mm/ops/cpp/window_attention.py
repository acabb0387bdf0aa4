"""Window attention in C++, for float32 on the CPU, in autograd."""

import ctypes
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops import reference
from swin_mm.ops.context import ContextScale, compute_context
from swin_mm.ops.cpp.build import build_refusal, load_library, pointer, run_parallel
from swin_mm.ops.keep import keep
from swin_mm.ops.transforms import opaque_refusal
from swin_mm.ops.window import padded_size, region_ids, window_order

PARTS_OF_A_THREAD = 4  # so that a thread that is held up leaves its share to others
MAX_SHARED_BIAS = 2**20  # bytes; each part has a gradient of its own


class Settings(NamedTuple):
    """What a call of window attention has beside tensors."""

    num_heads: int
    window_size: tuple[int, int]
    shift_size: tuple[int, int]
    scale: float


class _Problem(ctypes.Structure):
    """Mirrors `Problem` in window_attention.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("batch", "num_windows", "num_tokens")),
        *((name, ctypes.c_int64) for name in ("window_tokens", "num_heads", "head_dim")),
        *((name, ctypes.c_int64) for name in ("threads", "parts")),
        *((name, ctypes.c_void_p) for name in ("qkv", "pad_token", "bias", "token_at", "regions")),
        *((name, ctypes.c_void_p) for name in ("out", "normalisers", "grad_out", "grad_qkv")),
        *((name, ctypes.c_void_p) for name in ("grad_pad_token", "grad_bias", "run_parallel")),
        ("scale", ctypes.c_float),
    ]


def refusal(device: torch.device, dtype: torch.dtype, dropout: float) -> str | None:
    """Tells why the kernels cannot run, or `None` where they can.

    Args:
        device: Where the tensors are.
        dtype: Of query, key and value.
        dropout: Probability of dropping an attention weight.
    """
    if device.type != "cpu":
        return "it runs on the CPU"
    if dtype != torch.float32:
        return f"it is for float32, got {dtype}"
    if dropout > 0:
        return f"it has no dropout of attention weights, got {dropout}"
    return opaque_refusal() or build_refusal("window_attention")


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
    context_mix: Tensor | None = None,
    context_scales: tuple[ContextScale, ...] = (),
) -> Tensor:
    """Same contract as `swin_mm.ops.window_attention`.

    Context is computed by PyTorch and added to what the kernels return.

    Raises:
        ValueError: When the kernels cannot take these tensors.
    """
    reason = refusal(qkv.device, qkv.dtype, dropout)
    if reason is not None:
        raise ValueError(f"attn_backend='cpp' cannot run: {reason}; 'auto' takes another")
    settings = Settings(num_heads, tuple(window_size), tuple(shift_size), float(scale))
    pad_token = qkv.new_zeros(qkv.shape[-1]) if pad_token is None else pad_token
    out = _WindowAttention.apply(qkv, rel_pos_bias.float(), pad_token.float(), settings)
    if not context_scales:
        return out
    where = (num_heads, settings.window_size, settings.shift_size)
    return out + compute_context(qkv, pad_token, *where, context_mix, context_scales)


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, qkv: Tensor, rel_pos_bias: Tensor, pad_token: Tensor, settings: Settings
    ) -> Tensor:
        qkv, pad_token = qkv.contiguous(), pad_token.contiguous()
        order = _layout(qkv.shape[1:3], settings.window_size, settings.shift_size, _lanes())
        bias = _pad_keys(rel_pos_bias)
        batch, height, width, channels = qkv.shape
        out = qkv.new_empty(batch, height, width, channels // 3)
        normalisers = None
        if any(ctx.needs_input_grad):
            windows, tokens = order.token_at.shape
            normalisers = qkv.new_empty(batch, windows, settings.num_heads, tokens, 2)
        problem = _build_problem(qkv, pad_token, bias, order, settings)
        problem.out, problem.normalisers = pointer(out), pointer(normalisers)
        load_library("window_attention").window_attention_forward(ctypes.byref(problem))
        ctx.settings = settings
        ctx.save_for_backward(qkv, rel_pos_bias, pad_token, normalisers)
        return out

    @staticmethod
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, normalisers = ctx.saved_tensors  # read once: recomputed ones are given out once
        if torch.is_grad_enabled():  # by create_graph=True
            needed = ctx.needs_input_grad[:3]
            run = partial(reference.window_attention, **ctx.settings._asdict())
            grads = reference.differentiate(run, inputs, needed, grad_out)
            return *grads, None
        qkv, rel_pos_bias, pad_token = inputs
        grad_out, bias = grad_out.contiguous(), _pad_keys(rel_pos_bias)
        settings = ctx.settings
        order = _layout(qkv.shape[1:3], settings.window_size, settings.shift_size, _lanes())
        problem = _build_problem(qkv, pad_token, bias, order, settings)
        if bias.nbytes > MAX_SHARED_BIAS:
            problem.parts = problem.threads
        grad_qkv = torch.empty_like(qkv)
        grad_pad_token = pad_token.new_zeros(problem.parts, *pad_token.shape, dtype=torch.float64)
        grad_bias = bias.new_zeros(problem.parts, *bias.shape, dtype=torch.float64)
        problem.normalisers, problem.grad_out = pointer(normalisers), pointer(grad_out)
        problem.grad_qkv, problem.grad_pad_token = pointer(grad_qkv), pointer(grad_pad_token)
        problem.grad_bias = pointer(grad_bias)
        load_library("window_attention").window_attention_backward(ctypes.byref(problem))
        grad_bias = grad_bias.sum(0)[..., : bias.shape[1]]
        return grad_qkv, grad_bias.float(), grad_pad_token.sum(0).float(), None


class _Layout(NamedTuple):
    """Where the tokens of windows are.

    Attributes:
        token_at: `(nW, N)` int32; the count of tokens where there is padding.
        regions: `(nW, keys)` int32, see `swin_mm.ops.window.region_ids`; `None` without a shift.
    """

    token_at: Tensor
    regions: Tensor | None


@keep(32)  # as many as `swin_mm.ops.window` keeps, of half their size
def _layout(size, window_size, shift_size, lanes) -> _Layout:
    tokens = window_size[0] * window_size[1]
    token_at = window_order(size, window_size, shift_size).token_at
    token_at = token_at.unflatten(0, (-1, tokens)).int()
    if not any(shift_size):
        return _Layout(token_at, None)
    regions = region_ids(padded_size(size, window_size), window_size, shift_size)
    return _Layout(token_at, F.pad(regions, (0, -tokens % lanes)).int())


def _lanes() -> int:
    """Floats of a vector of this processor; keys come in whole vectors."""
    return load_library("window_attention").lanes()


def _pad_keys(bias: Tensor) -> Tensor:
    """Fills up `(nH, N, N)` to whole vectors of keys, which nobody attends to."""
    return F.pad(bias.detach(), (0, -bias.shape[-1] % _lanes()), value=-torch.inf).contiguous()


def _build_problem(
    qkv: Tensor, pad_token: Tensor, bias: Tensor, order: _Layout, settings: Settings
) -> _Problem:
    windows, tokens = order.token_at.shape
    threads = torch.get_num_threads()
    return _Problem(
        batch=qkv.shape[0],
        num_windows=windows,
        num_tokens=qkv.shape[1] * qkv.shape[2],
        window_tokens=tokens,
        num_heads=settings.num_heads,
        head_dim=qkv.shape[-1] // (3 * settings.num_heads),
        threads=threads,
        parts=PARTS_OF_A_THREAD * threads,
        qkv=pointer(qkv),
        pad_token=pointer(pad_token),
        bias=pointer(bias),
        token_at=pointer(order.token_at),
        regions=pointer(order.regions),
        run_parallel=run_parallel(),
        scale=settings.scale,
    )
