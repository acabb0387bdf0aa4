"""Window attention of Swin V1: the projections and the position bias table."""

import torch
from torch import Tensor, nn

from swin_mm.ops.dispatch import AttnBackend, window_attention
from swin_mm.ops.window import relative_position_index


class WindowAttention(nn.Module):
    """Multi-head self-attention in (shifted) windows with relative position bias.

    Args:
        embed_dims: Channels `C`.
        num_heads: Heads, a divisor of `embed_dims`.
        window_size: `(Wh, Ww)` in tokens.
        shift_size: `(Sh, Sw)` in tokens; `(0, 0)` for plain windows.
        qkv_bias: Whether the projection to query, key and value has a bias.
        qk_scale: Factor on the queries; `None` is `head_dim ** -0.5`.
        attn_drop_rate: Dropout of attention weights.
        proj_drop_rate: Dropout of the output.
        attn_backend: See `swin_mm.ops.window_attention`.

    Raises:
        ValueError: When `embed_dims` is not divisible by `num_heads`.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.2.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, int],
        shift_size: tuple[int, int] = (0, 0),
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_backend: AttnBackend = "auto",
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f"embed_dims must be divisible by heads, got {embed_dims=}, {num_heads=}"
            )
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.scale = (embed_dims // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop_rate = attn_drop_rate
        self.attn_backend = attn_backend
        win_h, win_w = window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * win_h - 1) * (2 * win_w - 1), num_heads)
        )
        # Derived from the window alone, so it stays out of checkpoints.
        index = relative_position_index(window_size)
        self.register_buffer("relative_position_index", index, persistent=False)
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def gather_bias(self) -> Tensor:
        """The position bias of every pair of tokens, `(nH, N, N)`."""
        bias = self.relative_position_bias_table[self.relative_position_index]  # (N, N, nH)
        return bias.permute(2, 0, 1).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Attends within windows, `(B, H, W, C)` to `(B, H, W, C)`, any `H` and `W`."""
        out = window_attention(
            self.qkv(x),
            self.gather_bias(),
            self.qkv.bias,
            num_heads=self.num_heads,
            window_size=self.window_size,
            shift_size=self.shift_size,
            scale=self.scale,
            dropout=self.attn_drop_rate if self.training else 0.0,
            backend=self.attn_backend,
        )
        return self.proj_drop(self.proj(out))
