"""The reference of each operator: no speed tricks, any device, any float dtype."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.window import (
    pad_bottom_right,
    padded_size,
    shift_mask,
    window_layout,
    window_partition,
    window_reverse,
)

# Microsoft's order of the 2x2 neighbours in the merged channels, as (row, column) offsets.
MERGE_ORDER = ((0, 0), (1, 0), (0, 1), (1, 1))


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
    """Attention within (shifted) windows: `softmax(scale * q kᵀ + bias + mask) v` per head.

    See `swin_mm.ops.window_attention` for the arguments.
    """
    size = qkv.shape[1], qkv.shape[2]
    layout = window_layout(size, window_size, shift_size, qkv.device)
    windows = window_partition(qkv, pad_token, layout)
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B*nW, nH, N, D)
    scores = (q * scale) @ k.transpose(-2, -1) + rel_pos_bias  # (B*nW, nH, N, N)
    if any(shift_size):
        mask = shift_mask(padded_size(size, window_size), window_size, shift_size, qkv.device)
        mask = mask.to(scores.dtype).unsqueeze(1)  # (nW, 1, N, N)
        scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask).flatten(0, 1)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    # Autocast runs softmax in float32; the product wants the values' dtype.
    out = weights.to(v.dtype) @ v  # (B*nW, nH, N, D)
    return window_reverse(out.transpose(1, 2).flatten(2), layout)


class Norm(NamedTuple):
    """A layer norm."""

    weight: Tensor  # (C,)
    bias: Tensor  # (C,)
    eps: float  # added to the variance


class Branch(NamedTuple):
    """What a residual block adds, `drop_path_scale * (value + bias)`, before it is added."""

    value: Tensor  # (B, H, W, C)
    bias: Tensor | None = None  # (C,), of the linear layer that gave the value
    noise: Tensor | None = None  # (B,) float32, uniform in [0, 1); None keeps all samples
    keep_prob: float = 1.0  # probability that a sample keeps its branch

    def drop_path_scale(self) -> Tensor:
        """The factor on each sample, `(B, 1, 1, 1)`: 0, or as much as keeps the mean."""
        assert self.noise is not None
        return ((self.noise + self.keep_prob).floor() / self.keep_prob)[:, None, None, None]

    def biased(self) -> Tensor:
        """`value + bias`."""
        return self.value if self.bias is None else self.value + self.bias


def add_norm(
    x: Tensor | None, branch: Branch | None, norm: Norm | None, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor | None]:
    """Adds a residual branch, and normalises the sum.

    Args:
        x: `(B, H, W, C)`; `None` for zeros, where no sample of the branch is dropped.
        branch: What is added; `None` for nothing. Not both are `None`.
        norm: The norm; `None` for none, where there is something to add.
        dtype: Of the normalised map.

    Returns:
        The sum, `(B, H, W, C)` in the dtype that `x` and the branch share, `None` where there is no
        `x`; and the normalised map in `dtype`, `None` without a norm.
    """
    total = x
    if branch is not None:
        added = branch.biased()
        if branch.noise is not None:
            added = added * branch.drop_path_scale()
        total = added
        if x is not None:
            total = (x + added).to(torch.promote_types(x.dtype, branch.value.dtype))
    out = None if norm is None or total is None else _normalise(total, norm).to(dtype)
    return (None if x is None else total), out


def norm_add(x: Tensor, branch: Branch, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Normalises a residual branch, and adds it: `x + drop_path_scale * norm(value + bias)`.

    Returns:
        The sum, `(B, H, W, C)` in the dtype of `x`, and the sum in `dtype`, which the next layer
        reads; both may be one tensor.
    """
    added = _normalise(branch.biased(), norm)
    if branch.noise is not None:
        added = added * branch.drop_path_scale()
    total = (x + added).to(x.dtype)
    return total, total.to(dtype)


def merge_norm(x: Tensor, norm: Norm, dtype: torch.dtype) -> Tensor:
    """Joins 2x2 neighbours as `join_neighbours`, and normalises the `4*C` channels, in `dtype`."""
    return _normalise(join_neighbours(x), norm).to(dtype)


def join_neighbours(x: Tensor) -> Tensor:
    """Joins 2x2 neighbours, `(B, H, W, C)` to `(B, ceil(H/2), ceil(W/2), 4*C)` in `MERGE_ORDER`.

    Odd sides are padded with zeros at the bottom and the right.
    """
    rows, columns = (x.shape[1] + 1) // 2, (x.shape[2] + 1) // 2
    x = pad_bottom_right(x, (2 * rows, 2 * columns))
    x = x.unflatten(2, (columns, 2)).unflatten(1, (rows, 2))  # (B, rows, 2, columns, 2, C)
    return x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # columns of a neighbourhood outermost


def _normalise(x: Tensor, norm: Norm) -> Tensor:
    """In the dtype that `x` and the norm share, whatever autocast is about."""
    dtype = torch.promote_types(x.dtype, norm.weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        weight, bias = norm.weight.to(dtype), norm.bias.to(dtype)
        return F.layer_norm(x.to(dtype), weight.shape, weight, bias, norm.eps)


def mlp(
    x: Tensor, fc1_weight: Tensor, fc1_bias: Tensor | None, fc2_weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """`gelu(x fc1_weightᵀ + fc1_bias) fc2_weightᵀ` in `dtype`, with the exact GELU.

    `x` is `(..., C)`, weights are `(hidden, C)` and `(C_out, hidden)`. The second layer's bias is
    left to the sum that follows.
    """
    fc1_bias = None if fc1_bias is None else fc1_bias.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        hidden = F.gelu(F.linear(x.to(dtype), fc1_weight.to(dtype), fc1_bias))
        return F.linear(hidden, fc2_weight.to(dtype))
