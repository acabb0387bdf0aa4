"""The readable definition of each operator: no speed tricks, any device, any float dtype."""

import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.context import ContextScale, mix_context
from swin_mm.ops.window import from_windows, padded_size, shift_mask, to_windows


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
    """Attention within (shifted) windows: `softmax(scale * q kᵀ + bias + mask) v` per head.

    Where there are context scales, the context of each window is added.
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
    out = weights.to(v.dtype) @ v  # (B*nW, nH, N, D)
    if context_scales:
        out = out + mix_context(v, context_mix, context_scales, size, window_size, shift_size)
    return from_windows(out.transpose(1, 2).flatten(2), size, window_size, shift_size)
