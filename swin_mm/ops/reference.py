"""The readable definition of each operator: no speed tricks, any device, any float dtype."""

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.window import pad_with, padded_size, shift_mask, window_partition, window_reverse


def to_windows(
    qkv: Tensor,
    pad_token: Tensor | None,
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
) -> Tensor:
    """Pads, shifts and cuts the projection's output: `(B, H, W, 3C)` to `(B*nW, N, 3C)`."""
    size = padded_size(qkv.shape[1:3], window_size)
    x = pad_with(qkv, size, pad_token)
    if any(shift_size):
        x = torch.roll(x, shifts=(-shift_size[0], -shift_size[1]), dims=(1, 2))
    return window_partition(x, window_size)


def from_windows(
    windows: Tensor,
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
) -> Tensor:
    """Undoes `to_windows` for the output: `(B*nW, N, C)` to `(B, H, W, C)`."""
    x = window_reverse(windows, window_size, padded_size(size, window_size))
    if any(shift_size):
        x = torch.roll(x, shifts=shift_size, dims=(1, 2))
    x = x[:, : size[0], : size[1]]
    # Compiled code copies always: it would compile once for maps that were padded, whose crop is
    # strided, and once for those that were not.
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_compiling() else x


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
    size = qkv.shape[1:3]
    windows = to_windows(qkv, pad_token, window_size, shift_size)
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B*nW, nH, N, D)
    scores = (q * scale) @ k.transpose(-2, -1) + rel_pos_bias  # (B*nW, nH, N, N)
    if any(shift_size):
        mask = shift_mask(padded_size(size, window_size), window_size, shift_size, qkv.device)
        mask = mask.to(scores.dtype).unsqueeze(1)  # (nW, 1, N, N)
        scores = (scores.unflatten(0, (-1, mask.shape[0])) + mask).flatten(0, 1)
    weights = F.dropout(scores.softmax(dim=-1), dropout)
    # Autocast runs softmax in float32; the product wants the values' dtype.
    out = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # (B*nW, N, C)
    return from_windows(out, size, window_size, shift_size)
