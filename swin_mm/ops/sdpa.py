"""Window attention through `torch.nn.functional.scaled_dot_product_attention`.

The projection is brought into window order once; heads stay strided views of it, and the
kernel writes its output with heads innermost, so nothing else is copied.
"""

import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.window import (
    padded_size,
    shift_mask,
    window_layout,
    window_partition,
    window_reverse,
)


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
    """Same contract as `swin_mm.ops.window_attention`."""
    size = qkv.shape[1], qkv.shape[2]
    batch = qkv.shape[0]
    layout = window_layout(size, window_size, shift_size, qkv.device)
    windows = window_partition(qkv, pad_token, layout)
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B*nW, nH, N, D)
    bias = rel_pos_bias.to(q.dtype).unsqueeze(0)  # (1, nH, N, N)
    if any(shift_size):
        mask = shift_mask(padded_size(size, window_size), window_size, shift_size, qkv.device)
        bias = bias + mask.to(q.dtype).unsqueeze(1)  # (nW, nH, N, N)
        if batch > 1:
            # Images in the batch dimension, windows among the heads: the mask broadcasts over
            # images as a view instead of being copied for each.
            q, k, v = (t.unflatten(0, (batch, -1)).flatten(1, 2) for t in (q, k, v))
            bias = bias.flatten(0, 1).unsqueeze(0)  # (1, nW*nH, N, N)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
    out = out.reshape(-1, num_heads, *out.shape[-2:])  # (B*nW, nH, N, D)
    return window_reverse(out.transpose(1, 2).flatten(2), layout)
