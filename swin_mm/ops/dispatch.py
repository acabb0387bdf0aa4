"""The implementations of a Swin block's operators, and the choice between them.

There is one table. Each row can say why it cannot run in a setting; the first that can is chosen.
Modules choose once and keep the choice until their setting changes, see
`swin_mm.models.layers.fused`.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from swin_mm.ops import reference, sdpa, self_test
from swin_mm.ops.context import ContextScale, check_context_scales, compute_context
from swin_mm.ops.linear import why_not_onednn
from swin_mm.ops.self_test import RowKernel, RowOperator
from swin_mm.ops.setting import Setting, is_exact_tensor, setting_of
from swin_mm.ops.triton import support

logger = logging.getLogger("swin_mm")

AttnBackend = Literal["auto", "triton", "sdpa", "reference"]
# Names of earlier versions, and what they mean today.
RETIRED: dict[str, AttnBackend] = {"cpp": "auto"}
# The fused kernels that `explain` names, with the channels of a Swin-T's first stage.
EXPLAINED_KERNELS: tuple[tuple[RowOperator, int], ...] = (
    ("add_norm", 96),
    ("norm_add", 96),
    ("merge_norm", 96),
    ("mlp", 384),
)


class Attention(NamedTuple):
    """What decides about window attention beside its setting."""

    head_dim: int  # channels of a head
    window_size: tuple[int, int]  # (Wh, Ww) in tokens
    dropout: float = 0.0  # probability of dropping an attention weight


class FusedForm(NamedTuple):
    """What decides whether a module can run in fewer passes, beside its setting."""

    operators: tuple[tuple[RowOperator, int], ...] = ()  # its operators and their channels
    widest: int = 1  # most channels that a norm of it has
    drops_samples: bool = False  # whether stochastic depth is active
    reason: str | None = None  # why its layers must be called one by one


class Implementation(NamedTuple):
    """One way to compute a block: window attention, and why that or the rest cannot run, if so.

    `attention` has the arguments of `reference.window_attention`.
    """

    attention: Callable[..., Tensor]
    why_not_attention: Callable[[Setting, Attention], str | None]
    why_not_fused: Callable[[Setting, FusedForm], str | None]


def _run_triton(*args: Any, **kwargs: Any) -> Tensor:
    from swin_mm.ops.triton.window_attention import window_attention  # imports Triton

    return window_attention(*args, **kwargs)


def _run_self_tested(qkv: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The kernels; SDPA where a number of heads that was not tested does not fit."""
    from triton.errors import TritonError

    try:
        return _run_triton(qkv, *args, **kwargs)
    except TritonError as error:
        head_dim = qkv.shape[-1] // (3 * kwargs["num_heads"])
        key = self_test.attention_key(qkv.device, qkv.dtype, kwargs["window_size"], head_dim)
        self_test.disable(key, error)
        return sdpa.window_attention(qkv, *args, **kwargs)


def _why_not_attention_by_triton(setting: Setting, attention: Attention) -> str | None:
    head_dim, window_size, dropout = attention
    return (
        _why_not_auto(setting)
        or support.why_not_attention(setting, head_dim, dropout)
        or self_test.why_not_attention(setting.device, setting.dtype, window_size, head_dim)
    )


def _why_not_fused_by_triton(setting: Setting, form: FusedForm) -> str | None:
    if reason := _why_not_auto(setting) or _why_not_fused_by_name(setting, form):
        return reason
    for name, channels in form.operators:
        dtypes = setting.norm_dtype, setting.linear_dtype
        if reason := self_test.why_not_rows(RowKernel(name, channels, setting.device, *dtypes)):
            return f"{name}: {reason}"
    return None


def _why_not_fused_by_name(setting: Setting, form: FusedForm) -> str | None:
    """Why the Triton kernels cannot run where they are requested by name, self-tested or not."""
    return form.reason or support.why_not_rows(setting, form.widest)


def _why_not_auto(setting: Setting) -> str | None:
    if not self_test.is_gpu(setting.device):  # on the CPU there is only Triton's interpreter
        return "the kernels run on CUDA"
    if setting.under_dispatch_mode:
        return "a dispatch mode must see the operators"
    return None


def _why_not_attention_by_sdpa(setting: Setting, attention: Attention) -> str | None:
    # PyTorch's fused CPU kernel gives no gradient to the bias, so its composite fallback would
    # run, which is slower than the reference.
    if setting.device.type == "cpu" and setting.needs_grad:
        return "its fused CPU kernel has no gradient for the position bias"
    return None


def _why_not_fused_by_onednn(setting: Setting, form: FusedForm) -> str | None:
    reason = "stochastic depth is active" if form.drops_samples else form.reason
    return reason or why_not_onednn(setting)


# In order of preference. The reference can always run.
IMPLEMENTATIONS: dict[AttnBackend, Implementation] = {
    "triton": Implementation(
        _run_self_tested, _why_not_attention_by_triton, _why_not_fused_by_triton
    ),
    "sdpa": Implementation(
        sdpa.window_attention, _why_not_attention_by_sdpa, _why_not_fused_by_onednn
    ),
    "reference": Implementation(
        reference.window_attention,
        lambda setting, attention: None,
        lambda setting, form: "the reference calls each layer",
    ),
}


def resolve_backend(name: str) -> AttnBackend:
    """Today's name of a backend.

    Raises:
        ValueError: `name` is no backend.
    """
    if name in RETIRED:
        logger.warning("attn_backend=%r was removed; %r is used instead", name, RETIRED[name])
        return RETIRED[name]
    for backend in get_args(AttnBackend):
        if name == backend:
            return backend
    raise ValueError(f"attn_backend must be one of {get_args(AttnBackend)}, got {name!r}")


def choose_attention(
    setting: Setting, attention: Attention, backend: AttnBackend = "auto"
) -> tuple[Callable[..., Tensor], AttnBackend, str]:
    """Chooses who computes window attention.

    Returns:
        The function, the implementation's name, and why it was chosen. One requested by name runs,
        or raises where it cannot.
    """
    if backend == "triton":
        return _run_triton, backend, "requested by name"
    if backend != "auto":
        return IMPLEMENTATIONS[backend].attention, backend, "requested by name"
    reasons = []
    for name, implementation in IMPLEMENTATIONS.items():
        reason = implementation.why_not_attention(setting, attention)
        if reason is None:
            reasons += ["self-test passed"] if name == "triton" else []
            return implementation.attention, name, "; ".join(reasons) or "first choice"
        reasons.append(f"not {name}: {reason}")
    raise AssertionError("the reference can always run")


def choose_fused(
    setting: Setting, form: FusedForm, backends: tuple[AttnBackend, ...], backend: AttnBackend
) -> tuple[AttnBackend | None, str]:
    """Chooses the fused form of a module, which has one for each of `backends`.

    Returns:
        Name of the implementation, `None` for the layers one by one; and why.
    """
    reasons = []
    for name in backends:
        if backend not in ("auto", name):
            reasons.append(f"not {name}: attn_backend is {backend!r}")
            continue
        is_by_name = backend == name == "triton"
        why_not = _why_not_fused_by_name if is_by_name else IMPLEMENTATIONS[name].why_not_fused
        reason = why_not(setting, form)
        if reason is None:
            return name, "; ".join(reasons) or "first choice"
        reasons.append(f"not {name}: {reason}")
    return None, "; ".join(reasons)


def explain() -> list[tuple[str, str, str]]:
    """What `auto` chooses on this machine. On a GPU it self-tests the kernels, in some seconds.

    Returns:
        Rows `(operator and use, implementation, reason)`; for windows of 7x7, heads of 32 channels
        and maps of 96, in bfloat16 on a GPU and in float32 elsewhere.
    """
    rows, attention = [], Attention(32, (7, 7))
    if torch.cuda.is_available():
        rows = explain_kernels(torch.device("cuda", torch.cuda.current_device()))
    for use, needs_grad in (("training", True), ("inference", False)):
        setting = setting_of(torch.zeros(1), needs_grad)
        rows.append((f"attention, cpu {use}", *choose_attention(setting, attention)[1:]))
    name, reason = choose_fused(setting, FusedForm(), ("sdpa",), "auto")
    chosen = "oneDNN's fused" if name else "PyTorch's"
    rows.append(("linear, cpu inference", chosen, "first choice" if name else reason))
    return rows


def explain_kernels(device: torch.device) -> list[tuple[str, str, str]]:
    """Rows of `explain` for a GPU."""
    setting = Setting(device, torch.bfloat16, needs_grad=True)
    rows: list[tuple[str, str, str]]
    rows = [(f"attention, {device}", *choose_attention(setting, Attention(32, (7, 7)))[1:])]
    setting = Setting(device, torch.float32, torch.bfloat16)
    for name, channels in EXPLAINED_KERNELS:
        reason = support.why_not_rows(setting, channels) or self_test.why_not_rows(
            RowKernel(name, channels, device, torch.float32, torch.bfloat16)
        )
        chosen = ("PyTorch", reason) if reason else ("triton", "self-test passed")
        rows.append((f"{name}, {device}", *chosen))
    return rows


@lru_cache
def log_choice(what: str, name: str, reason: str) -> None:
    """Logs a choice, once."""
    logger.debug("%s: %s (%s)", what, name, reason)


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

    Examples:
        >>> qkv = torch.randn(2, 10, 13, 3 * 32)
        >>> bias = torch.zeros(4, 49, 49)
        >>> window_attention(qkv, bias, num_heads=4, window_size=(7, 7), scale=8**-0.5).shape
        torch.Size([2, 10, 13, 32])
    """
    backend = resolve_backend(backend)
    _check_shapes(qkv, rel_pos_bias, num_heads, window_size, shift_size)
    head_dim = qkv.shape[-1] // (3 * num_heads)
    scales = check_context_scales(context_scales)
    wanted = (num_heads, head_dim, len(scales) * head_dim) if scales else None
    found = None if context_mix is None else tuple(context_mix.shape)
    if found != wanted:
        raise ValueError(f"context_mix must be {wanted} for {context_scales=}, got {found}")
    needs_grad = torch.is_grad_enabled() and (qkv.requires_grad or rel_pos_bias.requires_grad)
    setting = setting_of(qkv, needs_grad)
    if not is_exact_tensor(rel_pos_bias, pad_token):
        setting = setting._replace(is_exact_tensor=False)
    run, *choice = choose_attention(
        setting, Attention(head_dim, (window_size[0], window_size[1]), dropout), backend
    )
    if not torch.compiler.is_compiling():
        use = "training" if needs_grad else "inference"
        log_choice(f"window_attention on {qkv.device.type}, {use}", *choice)
    out = run(
        qkv,
        rel_pos_bias,
        pad_token,
        num_heads=num_heads,
        window_size=window_size,
        shift_size=shift_size,
        scale=scale,
        dropout=dropout,
    )
    if context_mix is None:
        return out
    sizes = num_heads, window_size, shift_size
    return out + compute_context(qkv, pad_token, *sizes, context_mix, context_scales)


def _check_shapes(
    qkv: Tensor,
    rel_pos_bias: Tensor,
    num_heads: int,
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
) -> None:
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
