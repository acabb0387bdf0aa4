"""Window attention by PyTorch's FlexAttention, to be compared with the kernel of swin_mm.

FlexAttention takes windows that lie together, so the projection is brought into window order
before and the output into map order after, as for `swin_mm.ops.sdpa`. Bias and mask are captured
by its score function.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

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
    attend: Callable[..., Tensor] = flex_attention,
) -> Tensor:
    """Same contract as `swin_mm.ops.window_attention`; `attend` may be it, compiled."""
    size = qkv.shape[1], qkv.shape[2]
    layout = window_layout(size, window_size, shift_size, qkv.device)
    windows = window_partition(qkv, pad_token, layout)
    q, k, v = windows.unflatten(-1, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)  # (B*nW, nH, N, D)
    mask = None
    if any(shift_size):
        mask = shift_mask(padded_size(size, window_size), window_size, shift_size, qkv.device)

    def score(value: Tensor, window: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        value = value + rel_pos_bias[head, row, column]
        return value if mask is None else value + mask[window % mask.shape[0], row, column]

    out = attend(q, k, v, score_mod=score, scale=scale)  # (B*nW, nH, N, D)
    return window_reverse(out.transpose(1, 2).flatten(2), layout)


def count_traffic(training: bool) -> dict[str, int]:
    """Numbers that are read and written for each channel of a token, and launches.

    Counted by hand. Ours reads query, key and value in place and writes the output; backward reads
    them, the output and its gradient, and writes three gradients. FlexAttention's has the same
    between copies into window order and out of it; its backward reads query, key, value and the
    gradient twice, once for the gradients of queries and once for those of keys and values.
    """
    ours, flex, launches = 3 + 1, (3 + 3) + (3 + 1) + (1 + 1), 3
    if training:
        ours += 3 + 2 + 3
        flex += (1 + 1) + 2 + (2 * 4 + 3) + (3 + 3)
        launches += 4  # copy, sums of output times gradient, gradients, copy
    return {"swin_mm": ours, "flex_attention": flex, "launches": launches}
