"""Patch embedding and patch merging, channels-last."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from swin_mm.models.layers import fused
from swin_mm.models.layers.fused import FusedForms, FusedModule
from swin_mm.ops.dispatch import AttnBackend, FusedForm, resolve_backend
from swin_mm.ops.reference import MERGE_ORDER, Branch, join_neighbours
from swin_mm.ops.setting import setting_of
from swin_mm.ops.window import pad_bottom_right, padded_size


class PatchEmbed(FusedModule):
    """Cuts an image into patches and projects each to a token.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels `C` of a token.
        patch_size: `(h, w)` in pixels.
        norm_cfg: Norm after the projection, as mmcv builds it; `None` for none.
        attn_backend: `triton` adds bias and norm in one pass.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        patch_size: tuple[int, int],
        norm_cfg: dict | None,
        attn_backend: AttnBackend = "auto",
    ) -> None:
        super().__init__()
        self.attn_backend = resolve_backend(attn_backend)
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` in pixels to `(B, ceil(H/h), ceil(W/w), C)` in tokens."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, in_channels)
        x = pad_bottom_right(x, padded_size(x.shape[1:3], self.patch_size)).contiguous()
        x = x.permute(0, 3, 1, 2)  # (B, in_channels, H, W)
        if (name := fused.choose(self, x, self.attn_backend)) is not None:
            return self.fused_forms[name](self, x)
        return self.norm(self.proj(x).permute(0, 2, 3, 1))

    def _by_triton(self, x: Tensor) -> Tensor:
        """Of a padded image; bias and norm are one kernel."""
        tokens = F.conv2d(x, self.proj.weight, stride=self.proj.stride).permute(0, 2, 3, 1)
        dtype = setting_of(tokens, needs_grad=False).norm_dtype
        norm = fused.norm_parameters(self.norm)
        return fused.kernels().add_norm(None, Branch(tokens, self.proj.bias), norm, dtype)[1]

    fused_forms: ClassVar[FusedForms] = {"triton": _by_triton}

    def bypassed_modules(self) -> tuple[nn.Module, ...]:
        return self.norm, self.proj

    def describe_fused(self) -> FusedForm:
        channels, reason = self.proj.out_channels, fused.why_not_norm(self.norm)
        if type(self.proj) is not nn.Conv2d:
            reason = f"the projection is {type(self.proj).__name__}"
        return FusedForm((("add_norm", channels),), channels, reason=reason)


class PatchMerging(FusedModule):
    """Joins 2x2 neighbours into one token of twice the channels.

    Args:
        embed_dims: Channels `C` of the input.
        stride: Tokens between neighbourhoods; 2 makes them disjoint.
        norm_cfg: Norm of the joined channels, as mmcv builds it; `None` for none.
        attn_backend: `triton` joins and normalises in one pass.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.1, "Patch merging". Parameters are in the
        order of microsoft/Swin-Transformer; mmdet's are in that of `nn.Unfold`.
    """

    def __init__(
        self,
        embed_dims: int,
        stride: int,
        norm_cfg: dict | None,
        attn_backend: AttnBackend = "auto",
    ) -> None:
        super().__init__()
        self.stride = stride
        self.attn_backend = resolve_backend(attn_backend)
        self.norm = build_norm_layer(norm_cfg, 4 * embed_dims)[1] if norm_cfg else nn.Identity()
        self.reduction = nn.Linear(4 * embed_dims, 2 * embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, ceil(H/stride), ceil(W/stride), 2C)`; edges are zero-padded."""
        if (name := fused.choose(self, x, self.attn_backend)) is not None:
            return self.fused_forms[name](self, x)
        if self.stride == 2:
            return self.reduce(join_neighbours(x))
        height, width = x.shape[1:3]
        # Not `-(-side // stride)`: in an exported ONNX file negative quotients round towards zero.
        rows, columns = ((side + self.stride - 1) // self.stride for side in (height, width))
        last_row, last_column = (rows - 1) * self.stride + 2, (columns - 1) * self.stride + 2
        x = pad_bottom_right(x, (max(last_row, height), max(last_column, width)))
        neighbours = [
            x[
                :,
                row : row + last_row - 1 : self.stride,
                column : column + last_column - 1 : self.stride,
            ]
            for row, column in MERGE_ORDER
        ]
        return self.reduce(torch.cat(neighbours, dim=-1))

    def reduce(self, joined: Tensor) -> Tensor:
        """Joined channels `(B, H, W, 4C)` to `(B, H, W, 2C)`."""
        return self.reduction(self.norm(joined))

    def _by_triton(self, x: Tensor) -> Tensor:
        """Joins and normalises in one kernel, then reduces."""
        dtype = setting_of(x, needs_grad=False).linear_dtype
        norm = fused.norm_parameters(self.norm)
        return self.reduction(fused.kernels().merge_norm(x, norm, dtype))

    fused_forms: ClassVar[FusedForms] = {"triton": _by_triton}

    def bypassed_modules(self) -> tuple[nn.Module, ...]:
        return (self.norm,)

    def describe_fused(self) -> FusedForm:
        width, reason = self.reduction.in_features, fused.why_not_norm(self.norm)
        if self.stride != 2:
            reason = f"neighbourhoods overlap, the stride is {self.stride}"
        return FusedForm((("merge_norm", width // 4),), width, reason=reason)


class PatchMergingV2(PatchMerging):
    """Patch merging of V2: the norm follows the reduction.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    fused_forms: ClassVar[FusedForms] = {}  # the kernel normalises before the reduction

    def __init__(self, embed_dims: int, stride: int, norm_cfg: dict | None) -> None:
        super().__init__(embed_dims, stride, norm_cfg=None)
        if norm_cfg:
            self.norm = build_norm_layer(norm_cfg, 2 * embed_dims)[1]

    def reduce(self, joined: Tensor) -> Tensor:
        return self.norm(self.reduction(joined))
