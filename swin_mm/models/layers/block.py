"""The Swin blocks: attention and MLP, each with a norm, each on a residual."""

from collections.abc import Callable

import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from swin_mm.models.layers import lean
from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.models.layers.lean import Stream
from swin_mm.models.layers.linear import (
    apply_linear,
    is_idle,
    is_seen,
    parameters_of,
)
from swin_mm.models.layers.stochastic_depth import add_branch
from swin_mm.ops.mlp import mlp
from swin_mm.ops.norm import Branch, add_norm, norm_add


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

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """A norm is applied to `x` before; a residual, `(..., C)`, is added to the result."""
        x = apply_linear(self.fc1, x, norm=norm, act=self.act, drop=self.drop)
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

    lean_sum = "add_norm"  # the operator of the lean form that adds a branch

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
        if lean.refusal(self, x) is None:
            return self.run_lean(Stream(x)).settle()
        if any(is_seen(module) for module in (self.attn, self.mlp, self.drop_path)):
            # A hook on a branch sees what the branch alone takes and gives.
            x = self.add(x, lambda x: self.attn(self.norm1(x)))
            return self.add(x, lambda x: self.mlp(self.norm2(x)))
        if is_idle(self.drop_path):
            x = self.attn(x, residual=x, norm=self.norm1)
            return self.mlp(x, x, self.norm2)
        x = self.add(x, lambda x: self.attn(x, norm=self.norm1))
        return self.add(x, lambda x: self.mlp(x, norm=self.norm2))

    def add(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """`x + drop_path(branch(x))`."""
        draws = self.attn.attn_drop_rate, self.attn.proj_drop.p, self.mlp.drop.p
        norms = type(self.norm1), type(self.norm2)
        # Hooks see all samples of a batch, also those whose branch is dropped.
        has_hooks = any(is_seen(module) for module in self.modules())
        if has_hooks or any(draws) or any(norm is not nn.LayerNorm for norm in norms):
            return x + self.drop_path(branch(x))  # a branch that is not as add_branch wants it
        return add_branch(x, branch, self.drop_path)

    def run_lean(self, stream: Stream) -> Stream:
        """The same by few kernels; leaves the last sum to whoever comes next."""
        x, branch, _ = stream
        dtype = lean.linear_dtype(x)
        x, normed = add_norm(x, branch, parameters_of(self.norm1), dtype, "triton")
        branch = self.run_lean_attention(normed)
        x, normed = add_norm(x, branch, parameters_of(self.norm2), dtype, "triton")
        return Stream(x, self.run_lean_mlp(normed))

    def run_lean_attention(self, x: Tensor) -> Branch:
        """The attention of a normed map; the bias of its last layer is left to the sum."""
        proj = self.attn.proj
        out = F.linear(self.attn.attend(x), proj.weight)
        return lean.build_branch(out, proj.bias, self.drop_path)

    def run_lean_mlp(self, x: Tensor) -> Branch:
        """The MLP of a normed map; the bias of its last layer is left to the sum."""
        fc1, fc2 = self.mlp.fc1, self.mlp.fc2
        out = mlp(x, fc1.weight, fc1.bias, fc2.weight, lean.linear_dtype(x), "triton")
        return lean.build_branch(out, fc2.bias, self.drop_path)


class SwinBlockV2(SwinBlock):
    """The block of V2: `x + norm1(attn(x))`, then `x + norm2(mlp(x))`, on a channels-last map.

    Args:
        has_extra_norm: Whether a third norm follows, on the sum.

    The other arguments are those of `SwinBlock`.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    lean_sum = "norm_add"

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
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Makes the block the identity, as in microsoft/Swin-Transformer."""
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        if lean.refusal(self, x) is None:
            return self.run_lean(Stream(x)).settle()
        x = self.add(x, lambda x: self.norm1(self.attn(x)))
        x = self.add(x, lambda x: self.norm2(self.mlp(x)))
        return x if self.norm3 is None else self.norm3(x)

    def run_lean(self, stream: Stream) -> Stream:
        x, _, narrow = stream  # a norm ends each block, so that no sum is left
        x = x.to(lean.norm_dtype(x))  # as a sum with what a norm gives is
        dtype = lean.linear_dtype(x)
        branch = self.run_lean_attention(x if narrow is None else narrow)
        x, narrow = norm_add(x, branch, parameters_of(self.norm1), dtype, "triton")
        branch = self.run_lean_mlp(narrow)
        x, narrow = norm_add(x, branch, parameters_of(self.norm2), dtype, "triton")
        if self.norm3 is not None:
            x, narrow = self.norm3(x), None
        return Stream(x, narrow=narrow)
