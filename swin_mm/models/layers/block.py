"""The Swin V1 block: attention and MLP, each behind a norm, each on a residual."""

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from swin_mm.models.layers.attention import WindowAttention
from swin_mm.ops.dispatch import AttnBackend


class Mlp(nn.Module):
    """Two linear layers with an activation between; `(..., C)` to `(..., C)`.

    Args:
        embed_dims: Channels `C`.
        hidden_dims: Channels between the layers.
        act_cfg: Activation, as mmcv builds it.
        drop_rate: Dropout after either layer.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, act_cfg: dict, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SwinBlock(nn.Module):
    """`x + attn(norm1(x))`, then `x + mlp(norm2(x))`, on a channels-last map.

    Args:
        embed_dims: Channels `C`.
        num_heads: Heads of the attention.
        window_size: `(Wh, Ww)` in tokens.
        shifted: Whether windows are shifted by half a window.
        mlp_ratio: Width of the MLP, in units of `C`.
        qkv_bias: See `WindowAttention`.
        qk_scale: See `WindowAttention`.
        drop_rate: Dropout of the attention's output and within the MLP.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Probability that a sample skips a residual branch.
        act_cfg: Activation of the MLP, as mmcv builds it.
        norm_cfg: Norms, as mmcv builds them.
        attn_backend: See `swin_mm.ops.window_attention`.

    Source:
        Liu et al., Swin Transformer, 2021, equation 3.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: tuple[int, int],
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        act_cfg: dict,
        norm_cfg: dict,
        attn_backend: AttnBackend,
    ) -> None:
        super().__init__()
        shift_size = (window_size[0] // 2, window_size[1] // 2) if shifted else (0, 0)
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = WindowAttention(
            embed_dims,
            num_heads,
            window_size,
            shift_size,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=drop_rate,
            attn_backend=attn_backend,
        )
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = Mlp(embed_dims, int(mlp_ratio * embed_dims), act_cfg, drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, C)`."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
