"""The Swin blocks: attention and MLP, each with a norm, each on a residual."""

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.models.layers.linear import apply_linear, is_idle


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

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """A residual, `(..., C)`, is added to the result."""
        x = apply_linear(self.fc1, x, act=self.act, drop=self.drop)
        return apply_linear(self.fc2, x, drop=self.drop, residual=residual)


class SwinBlock(nn.Module):
    """The block of V1: `x + attn(norm1(x))`, then `x + mlp(norm2(x))`, on a channels-last map.

    Args:
        attn: The attention, which knows the channels `C`.
        mlp_ratio: Width of the MLP, in units of `C`.
        drop_rate: Dropout within the MLP.
        drop_path_rate: Probability that a sample skips a residual branch.
        act_cfg: Activation of the MLP, as mmcv builds it.
        norm_cfg: Norms, as mmcv builds them.

    Source:
        Liu et al., Swin Transformer, 2021, equation 3.
    """

    def __init__(
        self,
        attn: WindowAttentionBase,
        mlp_ratio: float,
        drop_rate: float,
        drop_path_rate: float,
        act_cfg: dict,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        embed_dims = attn.embed_dims
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.attn = attn
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)[1]
        self.mlp = Mlp(embed_dims, int(mlp_ratio * embed_dims), act_cfg, drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, C)`."""
        if is_idle(self.drop_path):
            x = self.attn(self.norm1(x), residual=x)
            return self.mlp(self.norm2(x), residual=x)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class SwinBlockV2(SwinBlock):
    """The block of V2: `x + norm1(attn(x))`, then `x + norm2(mlp(x))`, on a channels-last map.

    Args:
        has_extra_norm: Whether a third norm follows, on the sum.

    The other arguments are those of `SwinBlock`.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    def __init__(
        self,
        attn: WindowAttentionBase,
        mlp_ratio: float,
        drop_rate: float,
        drop_path_rate: float,
        act_cfg: dict,
        norm_cfg: dict,
        has_extra_norm: bool = False,
    ) -> None:
        super().__init__(attn, mlp_ratio, drop_rate, drop_path_rate, act_cfg, norm_cfg)
        self.norm3 = build_norm_layer(norm_cfg, attn.embed_dims)[1] if has_extra_norm else None
        # A block begins as the identity, as in microsoft/Swin-Transformer.
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.norm1(self.attn(x)))
        x = x + self.drop_path(self.norm2(self.mlp(x)))
        return x if self.norm3 is None else self.norm3(x)
