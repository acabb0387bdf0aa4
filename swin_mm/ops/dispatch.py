"""Backend choice for each operator: an ordered list of candidates, each with its refusals."""

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from swin_mm.ops import attention_trial, reference, sdpa, trial
from swin_mm.ops.context import ContextScale, check_context_scales
from swin_mm.ops.transforms import is_plain, is_watched
from swin_mm.ops.triton import support

logger = logging.getLogger("swin_mm")

AttnBackend = Literal["auto", "triton", "reference", "sdpa"]


class Call(NamedTuple):
    """What decides between backends.

    Attributes:
        device: Where the tensors are.
        needs_grad: Whether a gradient is wanted.
        dtype: Of query, key and value.
        head_dim: Channels of a head.
        dropout: Probability of dropping an attention weight.
        window_size: `(Wh, Ww)` in tokens.
        is_plain: Whether the tensors are of no class of their own.
    """

    device: torch.device
    needs_grad: bool
    dtype: torch.dtype
    head_dim: int
    dropout: float
    window_size: tuple[int, int] = (7, 7)
    is_plain: bool = True


class Backend(NamedTuple):
    """One implementation of window attention.

    Attributes:
        run: The implementation.
        refusal: Tells why `auto` passes this backend over; `None` means it is taken. A backend
            asked for by name runs, or raises where it cannot.
    """

    run: Callable[..., Tensor]
    refusal: Callable[[Call], str | None]


def _run_triton(*args, **kwargs) -> Tensor:
    from swin_mm.ops.triton.window_attention import window_attention  # imports Triton

    return window_attention(*args, **kwargs)


def _run_tried(call: Call, *args, **kwargs) -> Tensor:
    """The kernels; where one of another number of heads than the trial's does not fit, SDPA."""
    from triton.errors import TritonError

    try:
        return _run_triton(*args, **kwargs)
    except TritonError as error:
        subject = attention_trial.subject_of(
            call.device, call.dtype, call.window_size, call.head_dim
        )
        trial.condemn(subject, error)
        return sdpa.window_attention(*args, **kwargs)


def _refuse_triton(call: Call) -> str | None:
    if not trial.is_gpu(call.device):  # on the CPU there is only Triton's interpreter
        return "it runs on CUDA"
    if not call.is_plain:
        return "a tensor is of a class of its own"
    if is_watched():
        return "a mode watches the operators"
    where = call.device, call.dtype
    reason = support.refusal(*where, call.head_dim, call.dropout)
    return reason or attention_trial.refusal(*where, call.window_size, call.head_dim)


def _refuse_sdpa(call: Call) -> str | None:
    # PyTorch's fused CPU kernel gives no gradient to the bias, so its composite fallback would
    # run, which is slower than the reference.
    if call.device.type == "cpu" and call.needs_grad:
        return "its fused CPU kernel has no gradient for the position bias"
    return None


def _accept(call: Call) -> None:
    return None


# In order of preference. `auto` takes the Triton kernels where they have passed a trial.
BACKENDS = {
    "triton": Backend(_run_triton, _refuse_triton),
    "sdpa": Backend(sdpa.window_attention, _refuse_sdpa),
    "reference": Backend(reference.window_attention, _accept),
}


def _choose(call: Call) -> tuple[str, str]:
    """Name of the backend that `auto` takes, and why."""
    reasons = []
    for name, backend in BACKENDS.items():
        refusal = backend.refusal(call)
        if refusal is None:
            reasons += ["trial passed"] if name == "triton" else []
            return name, "; ".join(reasons) or "first choice"
        reasons.append(f"{name} passed over: {refusal}")
    raise AssertionError("the reference accepts everything")


def check_backend(name: str) -> None:
    """Raises ValueError when `name` is no backend."""
    if name != "auto" and name not in BACKENDS:
        raise ValueError(f"attn_backend must be one of {('auto', *BACKENDS)}, got {name!r}")


def explain() -> list[tuple[str, str, str]]:
    """What `auto` chooses on this machine. On a GPU it tries the kernels, which takes some seconds.

    Returns:
        Rows `(operator and use, backend, reason)`; for windows of 7x7, heads of 32 channels and
        maps of 96, in bfloat16 on a GPU and in float32 elsewhere.
    """
    cpu, rows = torch.device("cpu"), []
    if torch.cuda.is_available():
        rows = _explain_gpu(torch.device("cuda", torch.cuda.current_device()))
    for use, needs_grad in (("training", True), ("inference", False)):
        call = Call(cpu, needs_grad, torch.float32, head_dim=32, dropout=0.0)
        rows.append((f"window_attention, cpu {use}", *_choose(call)))
    return rows


def _explain_gpu(gpu: torch.device) -> list[tuple[str, str, str]]:
    from swin_mm.ops import nms, row_trials  # which builds on what chooses here

    call = Call(gpu, True, torch.bfloat16, head_dim=32, dropout=0.0)
    rows = [(f"window_attention, {gpu}", *_choose(call))]
    boxes = torch.zeros(1, 1, 4, device=gpu)
    works = [
        row_trials.Work(operator, channels, gpu, torch.float32, torch.bfloat16)
        for operator, channels in (
            ("add_norm", 96),
            ("norm_add", 96),
            ("merge_norm", 96),
            ("mlp", 384),
        )
    ]
    found = [
        (w.operator, "PyTorch", support.row_refusal(w.channels, boxes) or row_trials.refusal(w))
        for w in works
    ]
    for name, fallback, reason in (*found, ("nms", "torchvision", nms._kernel_refusal(boxes))):
        chosen = ("triton", "trial passed") if reason is None else (fallback, reason)
        rows.append((f"{name}, {gpu}", *chosen))
    return rows


@lru_cache
def _log_choice(device_type: str, needs_grad: bool, name: str, reason: str) -> None:
    use = "training" if needs_grad else "inference"
    logger.debug("window_attention on %s, %s: %s (%s)", device_type, use, name, reason)


def window_attention(
    qkv: Tensor,
    rel_pos_bias: Tensor,
    pad_token: Tensor | None = None,
    *,
    num_heads: int,
    window_size: tuple[int, int],
    shift_size: tuple[int, int] = (0, 0),
    scale: float,
    dropout: float = 0.0,
    context_mix: Tensor | None = None,
    context_scales: tuple[ContextScale, ...] = (),
    backend: AttnBackend = "auto",
) -> Tensor:
    """Attention within (shifted) windows of a map of any size.

    The map is padded at the bottom and the right to a multiple of the window, then rolled by
    `-shift_size`. Padded tokens are live keys and values. Tokens of one window that come from
    different regions of the map see each other through `MASK_VALUE`. The shift applies also when
    the map is no larger than the window.

    Args:
        qkv: `(B, H, W, 3*C)`, the projection's query, key and value, each with heads outermost.
        rel_pos_bias: `(nH, N, N)`, added to the scores.
        pad_token: `(3*C,)`, the projection of a zero token, its bias; `None` for zeros.
        num_heads: Number of heads, a divisor of `C`.
        window_size: `(Wh, Ww)` in tokens.
        shift_size: `(Sh, Sw)` in tokens, each less than the window's side.
        scale: Factor on the queries.
        dropout: Probability of dropping an attention weight.
        context_mix: `(nH, D, S*D)`, how the context of `S` scales is mixed in; see
            `swin_mm.ops.context`.
        context_scales: `window`, `global` or ints; empty for plain attention.
        backend: `auto` chooses by device and use; a name forces that implementation.

    Returns:
        `(B, H, W, C)`, heads concatenated, in the dtype of `qkv`.

    Raises:
        ValueError: When shapes disagree, or the backend is unknown or cannot run.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.2 and equation 4; padding and masking as in
        mmdet 3.3.0, `ShiftWindowMSA`.

    Example:
        >>> qkv = torch.randn(2, 10, 13, 3 * 32)
        >>> bias = torch.zeros(4, 49, 49)
        >>> window_attention(qkv, bias, num_heads=4, window_size=(7, 7), scale=8**-0.5).shape
        torch.Size([2, 10, 13, 32])
    """
    check_backend(backend)
    tokens = window_size[0] * window_size[1]
    if qkv.dim() != 4 or qkv.shape[-1] % (3 * num_heads):
        raise ValueError(
            f"qkv must be (B, H, W, 3*C) with C a multiple of {num_heads=}, got {tuple(qkv.shape)}"
        )
    if rel_pos_bias.shape != (num_heads, tokens, tokens):
        raise ValueError(
            f"rel_pos_bias must be {(num_heads, tokens, tokens)} for {num_heads=}, {window_size=}, "
            f"got {tuple(rel_pos_bias.shape)}"
        )
    if not all(0 <= s < w for s, w in zip(shift_size, window_size, strict=True)):
        raise ValueError(
            f"shift_size must be in [0, window_size), got {shift_size=}, {window_size=}"
        )
    _check_context(context_mix, context_scales, num_heads, qkv.shape[-1] // (3 * num_heads))
    run = None if backend == "auto" else BACKENDS[backend].run
    if run is None:
        # A traced graph also runs where gradients are wanted: its backend does not depend on it.
        needs_grad = torch.jit.is_tracing() or (
            torch.is_grad_enabled() and (qkv.requires_grad or rel_pos_bias.requires_grad)
        )
        head_dim = qkv.shape[-1] // (3 * num_heads)
        plain = is_plain(qkv, rel_pos_bias, pad_token)
        where = tuple(window_size), plain
        run = _choose_run(Call(qkv.device, needs_grad, qkv.dtype, head_dim, dropout, *where))
    return run(
        qkv,
        rel_pos_bias,
        pad_token,
        num_heads=num_heads,
        window_size=window_size,
        shift_size=shift_size,
        scale=scale,
        dropout=dropout,
        context_mix=context_mix,
        context_scales=context_scales,
    )


def _choose_run(call: Call) -> Callable[..., Tensor]:
    """What `auto` runs."""
    name, reason = _choose(call)
    if torch.compiler.is_compiling():
        return BACKENDS[name].run
    _log_choice(call.device.type, call.needs_grad, name, reason)
    return partial(_run_tried, call) if name == "triton" else BACKENDS[name].run


def _check_context(context_mix, context_scales, num_heads: int, head_dim: int) -> None:
    scales = check_context_scales(context_scales)
    wanted = (num_heads, head_dim, len(scales) * head_dim) if scales else None
    found = None if context_mix is None else tuple(context_mix.shape)
    if found != wanted:
        raise ValueError(f"context_mix must be {wanted} for {context_scales=}, got {found}")
