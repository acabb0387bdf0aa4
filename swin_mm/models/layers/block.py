"""The Swin blocks: attention and MLP, each with a norm, each on a residual."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from swin_mm.models.layers import fused
from swin_mm.models.layers.attention import WindowAttentionBase
from swin_mm.models.layers.fused import FusedForms, FusedModule, PendingResidual
from swin_mm.models.layers.hooks import has_hooks, is_identity
from swin_mm.models.layers.stochastic_depth import add_branch
from swin_mm.ops.dispatch import FusedForm
from swin_mm.ops.linear import linear_add, mlp_add
from swin_mm.ops.reference import Branch
from swin_mm.ops.sdpa import window_attention as sdpa_attention
from swin_mm.ops.self_test import RowOperator
from swin_mm.ops.setting import setting_of


class Mlp(nn.Module):
    """Two linear layers with an activation between, and dropout after either."""

    def __init__(self, embed_dims: int, hidden_dims: int, act_cfg: dict, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class SwinBlock(FusedModule):
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

    sum_operator: ClassVar[RowOperator] = "add_norm"

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
        self.drop_path: nn.Module = nn.Identity()
        if drop_path_rate > 0:
            self.drop_path = DropPath(drop_path_rate)
        self.norm3: nn.Module | None = None  # of some V2 blocks

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, H, W, C)`."""
        if (name := fused.choose(self, x, self.attn.attn_backend)) is not None:
            return self.fused_forms[name](self, PendingResidual(x)).materialize()
        skips = self._may_skip_samples()
        x = add_branch(x, self._attention_branch, self.drop_path, skips)
        x = add_branch(x, self._mlp_branch, self.drop_path, skips)
        return x if self.norm3 is None else self.norm3(x)

    def _attention_branch(self, x: Tensor) -> Tensor:
        return self.attn(self.norm1(x))

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm2(x))

    def advance(self, pending: PendingResidual) -> PendingResidual:
        """`forward`, where the last sum may be left to what comes next."""
        state = self.__dict__  # as `has_hooks`, without a call for each block of a pass
        is_hooked = (
            state["_forward_hooks"]
            or state["_forward_pre_hooks"]
            or state["_backward_hooks"]
            or state["_backward_pre_hooks"]
            or "forward" in state
        )
        if is_hooked:  # hooks run where it is called, as those that gather its weights
            return PendingResidual(self(pending.materialize()))
        if (name := fused.choose(self, pending.x, self.attn.attn_backend)) is not None:
            return self.fused_forms[name](self, pending)
        return PendingResidual(self(pending.materialize()))

    def _by_triton(self, pending: PendingResidual) -> PendingResidual:
        """Sum and norm, attention, sum and norm, MLP; the last sum is left to what comes next."""
        x, branch, _ = pending
        dtype = setting_of(x, needs_grad=False).linear_dtype
        add_norm = fused.kernels().add_norm
        x, normed = add_norm(x, branch, fused.norm_parameters(self.norm1), dtype)
        branch = self._attention_before_bias(normed)
        x, normed = add_norm(x, branch, fused.norm_parameters(self.norm2), dtype)
        return PendingResidual(x, self._mlp_before_bias(normed, dtype))

    def _attention_before_bias(self, x: Tensor) -> Branch:
        """The attention of a map; the bias of its last layer is left to the sum."""
        proj = self.attn.proj
        out = F.linear(self.attn.attend(x), proj.weight)
        return fused.build_branch(out, proj.bias, self.drop_path)

    def _mlp_before_bias(self, x: Tensor, dtype: torch.dtype) -> Branch:
        """The MLP of a map; the bias of its last layer is left to the sum."""
        fc1, fc2 = self.mlp.fc1, self.mlp.fc2
        out = fused.kernels().mlp(x, fc1.weight, fc1.bias, fc2.weight, dtype)
        return fused.build_branch(out, fc2.bias, self.drop_path)

    def _by_onednn(self, pending: PendingResidual) -> PendingResidual:
        """In inference: linear layers take GELU and residual along."""
        x, attn, mlp = pending.x, self.attn, self.mlp
        x = linear_add(attn.attend(self.norm1(x), sdpa_attention), attn.proj, x)
        return PendingResidual(mlp_add(self.norm2(x), mlp.fc1, mlp.fc2, x))

    fused_forms: ClassVar[FusedForms] = {"triton": _by_triton, "sdpa": _by_onednn}

    def _may_skip_samples(self) -> bool:
        """Whether branches treat samples alone, draw no numbers, and no hook sees the batch."""
        if is_identity(self.drop_path):
            return False
        norms = type(self.norm1), type(self.norm2)
        is_drawn = self.attn.attn_drop_rate or self.attn.proj_drop.p or self.mlp.drop.p
        is_hooked = any(map(has_hooks, self.modules()))
        return norms == (nn.LayerNorm, nn.LayerNorm) and not is_drawn and not is_hooked

    def bypassed_modules(self) -> tuple[nn.Module, ...]:
        attn, mlp = self.attn, self.mlp
        own = (self.drop_path, self.norm1, self.norm2)
        return (*own, attn, attn.proj, attn.proj_drop, mlp, mlp.fc1, mlp.act, mlp.fc2, mlp.drop)

    def describe_fused(self) -> FusedForm:
        if reason := self._why_not_fused():
            return FusedForm(reason=reason)
        channels, hidden = self.attn.embed_dims, self.mlp.fc1.out_features
        operators: Any = (self.sum_operator, channels), ("mlp", hidden)
        return FusedForm(operators, channels, not is_identity(self.drop_path))

    def _why_not_fused(self) -> str | None:
        """Why layers must be called one by one; `None` where nobody would notice."""
        attn, mlp = self.attn, self.mlp
        if type(attn).forward is not WindowAttentionBase.forward:
            return f"{type(attn).__name__} has a forward of its own"
        for layer in (attn.proj, mlp.fc1, mlp.fc2):
            if type(layer) is not nn.Linear:
                return f"a linear layer is {type(layer).__name__}"
        if type(mlp.act) is not nn.GELU or mlp.act.approximate != "none":
            return f"the activation is {mlp.act}"
        if not (is_identity(attn.proj_drop) and is_identity(mlp.drop)):
            return "dropout is active"
        return fused.why_not_norm(self.norm1) or fused.why_not_norm(self.norm2)


class SwinBlockV2(SwinBlock):
    """The block of V2: `x + norm1(attn(x))`, then `x + norm2(mlp(x))`, on a channels-last map.

    Args:
        has_extra_norm: Whether a third norm follows, on the sum.

    The other arguments are those of `SwinBlock`.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    sum_operator: ClassVar[RowOperator] = "norm_add"

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
        if has_extra_norm:
            self.norm3 = build_norm_layer(norm_cfg, attn.embed_dims)[1]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Makes the block the identity, as in microsoft/Swin-Transformer."""
        for norm in (self.norm1, self.norm2):
            nn.init.zeros_(norm.weight)

    def _attention_branch(self, x: Tensor) -> Tensor:
        return self.norm1(self.attn(x))

    def _mlp_branch(self, x: Tensor) -> Tensor:
        return self.norm2(self.mlp(x))

    def _by_triton(self, pending: PendingResidual) -> PendingResidual:
        """Attention, norm and sum, MLP, norm and sum."""
        x, _, low_precision = pending  # a norm ends each block, so no sum is pending
        setting = setting_of(x, needs_grad=False)
        dtype = setting.linear_dtype
        x = x.to(setting.norm_dtype)  # as a sum with what a norm returns
        norm_add = fused.kernels().norm_add
        branch = self._attention_before_bias(x if low_precision is None else low_precision)
        x, low_precision = norm_add(x, branch, fused.norm_parameters(self.norm1), dtype)
        branch = self._mlp_before_bias(low_precision, dtype)
        x, low_precision = norm_add(x, branch, fused.norm_parameters(self.norm2), dtype)
        if self.norm3 is not None:
            x, low_precision = self.norm3(x), None
        return PendingResidual(x, low_precision=low_precision)

    def _by_onednn(self, pending: PendingResidual) -> PendingResidual:
        """In inference: the linear layers of the MLP take GELU along."""
        x, attn, mlp = pending.x, self.attn, self.mlp
        x = x + self.norm1(attn.proj(attn.attend(x, sdpa_attention)))
        x = x + self.norm2(mlp_add(x, mlp.fc1, mlp.fc2, None))
        return PendingResidual(x if self.norm3 is None else self.norm3(x))

    fused_forms: ClassVar[FusedForms] = {"triton": _by_triton, "sdpa": _by_onednn}
