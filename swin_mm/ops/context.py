"""Mixed-context attention: mean values of larger surroundings, mixed into what a window attends to.

With `A` the attention weights of a window, `V` its values, `v̄_s` their mean over the surroundings
of scale `s`, and `M` a learned matrix for each head:

    out = A V + M [v̄_1; ...; v̄_S]

The rows of `A` sum to one, so this equals, with `Z = I - 11ᵀ/N` and where `window` is among the
scales, the mix of centred detail and low-frequency context

    out = A Z V + ([I, 0, ...] + M) [v̄; v̄_2; ...]

`M` is thus kept as the difference from the identity: zeros leave plain attention, to the bit.
(Dropout of weights breaks the sum of a row; the first form is the definition.)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from swin_mm.ops.window import padded_size, window_layout, window_partition, window_reverse

ContextScale = Literal["window", "global"] | int


def check_context_scales(scales: Sequence[ContextScale]) -> tuple[ContextScale, ...]:
    """Returns the scales as a tuple.

    Raises:
        ValueError: When one is neither `window`, `global` nor an int of at least 2, or named twice.
    """
    is_listed = isinstance(scales, list | tuple)
    if not is_listed or not all(
        scale in ("window", "global") or (type(scale) is int and scale >= 2) for scale in scales
    ):
        raise ValueError(
            "context_scales must list 'window', 'global' or ints k of at least 2, for k x k "
            f"windows, such as ('window', 2, 'global'); got {scales!r}"
        )
    if len(set(scales)) != len(scales):
        raise ValueError(f"context_scales must name each scale once, got {tuple(scales)}")
    return tuple(scales)


def compute_context(
    qkv: Tensor,
    pad_token: Tensor | None,
    num_heads: int,
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    context_mix: Tensor,
    context_scales: tuple[ContextScale, ...],
) -> Tensor:
    """What the context adds to the output of every token of a window.

    Args:
        qkv: `(B, H, W, 3*C)`, the projection.
        pad_token: `(3*C,)`, that of a padded token; `None` for zeros.
        num_heads, window_size, shift_size: See `swin_mm.ops.window_attention`.
        context_mix: `(nH, D, S*D)`, the matrix `M` of each head.
        context_scales: The `S` scales; see `pool_values`.

    Returns:
        `(B, H, W, C)` in the dtype of `qkv`.
    """
    _, height, columns, channels = qkv.shape
    size, width = (height, columns), channels // 3
    pad_value = None if pad_token is None else pad_token[2 * width :]
    layout = window_layout(size, window_size, shift_size, qkv.device)
    values = window_partition(qkv[..., 2 * width :], pad_value, layout)
    values = values.unflatten(-1, (num_heads, -1)).transpose(1, 2)  # (B*nW, nH, N, D)
    means = pool_values(values, context_scales, size, window_size, shift_size)  # (B*nW, nH, S, D)
    mixed = torch.einsum("whe,hde->whd", means.flatten(2).to(context_mix.dtype), context_mix)
    context = mixed.unsqueeze(2).to(values.dtype).expand_as(values)
    return window_reverse(context.transpose(1, 2).flatten(2), layout)


def pool_values(
    values: Tensor,
    scales: tuple[ContextScale, ...],
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
) -> Tensor:
    """Mean values `(B*nW, nH, S, D)` of each window's surroundings, in float32 at least.

    Args:
        values: `(B*nW, nH, N, D)`, the values in windows, padded tokens among them.
        scales: `window`: the window's `N` tokens, padded ones too, since they are live values.
            An int `k`: the tokens of the map, without padding, in the `k x k` windows of the
            (shifted) grid among which the window is, fewer at the grid's end. `global`: all
            tokens of the map.
        size, window_size, shift_size: See `swin_mm.ops.window`.
    """
    dtype = torch.promote_types(values.dtype, torch.float32)
    means = []
    if "window" in scales:
        window_means = values.mean(-2, dtype=dtype)  # (B*nW, nH, D)
    if scales != ("window",):
        token_means, counts = _average_tokens(values, size, window_size, shift_size, dtype)
    for scale in scales:
        if scale == "window":
            means.append(window_means)
            continue
        if scale == "global":
            weights = counts / (size[0] * size[1])
            mean = (token_means * weights[:, None, None]).sum(1, keepdim=True)  # (B, 1, nH, D)
            mean = mean.expand_as(token_means)
        else:
            mean = _average_groups(token_means, counts, scale, size, window_size)
        means.append(mean.flatten(0, 1))
    return torch.stack(means, dim=2)


def _average_tokens(
    values: Tensor,
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Means over the tokens of each window that are no padding, and how many these are.

    Returns:
        `(B, nW, nH, D)` and `(nW,)`.
    """
    gather_index = window_layout(size, window_size, shift_size, values.device).gather_index
    is_token = (gather_index < size[0] * size[1]).unflatten(0, (-1, values.shape[-2]))  # (nW, N)
    values = values.unflatten(0, (-1, is_token.shape[0]))  # (B, nW, nH, N, D)
    counts = is_token.sum(-1).to(dtype)
    # Compiled code masks always: a branch on the sizes would cost recompilations.
    if not torch.compiler.is_compiling() and padded_size(size, window_size) == tuple(size):
        return values.mean(-2, dtype=dtype), counts
    is_token = is_token.to(values.dtype)[:, None, :, None]  # (nW, 1, N, 1)
    sums = (values * is_token).sum(-2, dtype=dtype)
    return sums / counts.clamp_min(1)[:, None, None], counts


def _average_groups(
    token_means: Tensor, counts: Tensor, k: int, size: tuple[int, int], window_size: tuple[int, int]
) -> Tensor:
    """Means over groups of `k x k` windows, given back to each window, `(B, nW, nH, D)`."""
    pad_h, pad_w = padded_size(size, window_size)
    rows, columns = pad_h // window_size[0], pad_w // window_size[1]
    groups_across = (columns + k - 1) // k
    window = torch.arange(counts.shape[0], device=counts.device)
    group_of = window // columns // k * groups_across + window % columns // k
    # One group more than there are, for the window of padding that compiled code has.
    groups = torch.arange((rows + k - 1) // k * groups_across + 1, device=counts.device)
    is_member = (groups[:, None] == group_of).to(counts.dtype)  # (groups, nW)
    weights = is_member * counts
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1)
    # Products rather than scattered sums, which a GPU adds in no fixed order.
    means = torch.einsum("gw,bwhd->bghd", weights, token_means)
    return torch.einsum("gw,bghd->bwhd", is_member, means)
