"""Window attention of Swin V1, and what V2's shares with it: heads, windows and the projections."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from swin_mm.models.layers.hooks import has_hooks
from swin_mm.ops.context import ContextScale, check_context_scales, compute_context
from swin_mm.ops.dispatch import (
    Attention,
    AttnBackend,
    choose_attention,
    log_choice,
    resolve_backend,
)
from swin_mm.ops.setting import setting_of
from swin_mm.ops.window import pad_bottom_right, padded_size, relative_position_index


class WindowAttentionBase(nn.Module):
    """Multi-head self-attention in (shifted) windows; subclasses give scores their form.

    Args:
        embed_dims: Channels `C`.
        num_heads: Heads, a divisor of `embed_dims`.
        window_size: `(Wh, Ww)` in tokens.
        is_shifted: Whether windows are shifted by half a window.
        qkv_bias: Whether the projection to query, key and value has a bias, where it is `qkv`'s.
        attn_drop_rate: Dropout of attention weights.
        proj_drop_rate: Dropout of the output.
        attn_backend, context_scales: See `swin_mm.ops.window_attention`.

    Raises:
        ValueError: When `embed_dims` is not divisible by `num_heads`, or a scale is unknown.
    """

    scale = 1.0

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, int],
        *,
        is_shifted: bool = False,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        attn_backend: AttnBackend = "auto",
        context_scales: Sequence[ContextScale] = (),
    ) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f"embed_dims must be divisible by heads, got {embed_dims=}, {num_heads=}"
            )
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = (window_size[0] // 2, window_size[1] // 2) if is_shifted else (0, 0)
        self.attn_drop_rate = attn_drop_rate
        self.attn_backend = resolve_backend(attn_backend)
        self.context_scales = check_context_scales(context_scales)
        self.context_mix: nn.Parameter | None = None
        if self.context_scales:
            head_dim = embed_dims // num_heads
            # The difference from the identity, so that weight decay leads to plain attention.
            self.context_mix = nn.Parameter(
                torch.zeros(num_heads, head_dim, len(self.context_scales) * head_dim)
            )
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def reset_parameters(self) -> None:
        """Initialises the parameters that belong to no layer inside."""
        if self.context_mix is not None:
            nn.init.zeros_(self.context_mix)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        """What attention takes.

        Returns:
            Query, key and value, `(B, H, W, 3*C)`; those of a padded token, `(3*C,)`, `None` for
            zeros; the bias of each relative position, `((2*Wh-1)*(2*Ww-1), nH)`.
        """
        raise NotImplementedError

    def call_qkv(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Query, key and value by a call of `qkv`, where that is more than its parameters.

        What a quantised or hooked layer returns for a padded token is not its bias.
        """
        height, width = x.shape[1:3]
        qkv = self.qkv(pad_bottom_right(x, padded_size((height, width), self.window_size)))
        has_padding = qkv.shape[1:3] != x.shape[1:3]
        return qkv[:, :height, :width], qkv[0, -1, -1] if has_padding else None

    def forward(self, x: Tensor) -> Tensor:
        """Attends within windows, `(B, H, W, C)` to `(B, H, W, C)`, any `H` and `W`."""
        return self.proj_drop(self.proj(self.attend(x)))

    def attend(self, x: Tensor, attention: Callable[..., Tensor] | None = None) -> Tensor:
        """`forward` without the projection of the output.

        Window attention is computed by `attention`, or by what `attn_backend` chooses.
        """
        qkv, pad_token, table = self.project(x)
        # Not a buffer: on the meta device or after `to_empty` that would hold no index.
        bias = table[relative_position_index(self.window_size, table.device)]  # (N, N, nH)
        bias = bias.permute(2, 0, 1).contiguous()  # (nH, N, N)
        windows = self.num_heads, self.window_size, self.shift_size
        attention = attention or self._choose(qkv, bias)
        dropout = self.attn_drop_rate if self.training else 0.0
        out = attention(
            qkv,
            bias,
            pad_token,
            num_heads=self.num_heads,
            window_size=self.window_size,
            shift_size=self.shift_size,
            scale=self.scale,
            dropout=dropout,
        )
        if self.context_mix is not None:
            mix = self.context_mix, self.context_scales
            out = out + compute_context(qkv, pad_token, *windows, *mix)
        return out

    def _choose(self, qkv: Tensor, bias: Tensor) -> Callable[..., Tensor]:
        """Who computes window attention; kept until something that decides changes."""
        needs_grad = torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad)
        dropout = self.attn_drop_rate if self.training else 0.0
        key = self.attn_backend, setting_of(qkv, needs_grad), dropout
        is_compiling = torch.compiler.is_compiling()
        if not is_compiling:
            kept = self.__dict__.get("_attention_choice")
            if kept is not None and kept[0] == key:
                return kept[1]
        attention = Attention(self.embed_dims // self.num_heads, self.window_size, dropout)
        run, name, reason = choose_attention(key[1], attention, self.attn_backend)
        if not is_compiling:
            use = "training" if needs_grad else "inference"
            log_choice(f"window_attention on {qkv.device.type}, {use}", name, reason)
            self.__dict__["_attention_choice"] = key, run
        return run


class WindowAttention(WindowAttentionBase):
    """Window attention of V1: scaled products, and a learned bias for each relative position.

    Args:
        qk_scale: Factor on the queries; `None` is `head_dim ** -0.5`.

    The other arguments are those of `WindowAttentionBase`.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.2.

    Examples:
        A sequence is a map of one row: 512 tokens of width 768 in eight windows of 64, with the
        mean of each window and that of the sequence as context.

        >>> attention = WindowAttention(768, 12, (1, 64), context_scales=("window", "global"))
        >>> attention(torch.zeros(2, 1, 512, 768)).shape
        torch.Size([2, 1, 512, 768])
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, int],
        *,
        qk_scale: float | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(embed_dims, num_heads, window_size, **arguments)
        self.scale = (embed_dims // num_heads) ** -0.5 if qk_scale is None else qk_scale
        win_h, win_w = window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * win_h - 1) * (2 * win_w - 1), num_heads)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
        table, qkv = self.relative_position_bias_table, self.qkv
        if type(qkv) is nn.Linear and not has_hooks(qkv):
            return qkv(x), qkv.bias, table
        return *self.call_qkv(x), table
