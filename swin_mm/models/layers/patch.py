"""Patch embedding and patch merging, channels-last."""

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from swin_mm.models.layers import lean
from swin_mm.models.layers.linear import apply_linear, parameters_of
from swin_mm.ops.dispatch import AttnBackend
from swin_mm.ops.norm import Branch, add_norm, merge_norm
from swin_mm.ops.reference import MERGE_ORDER
from swin_mm.ops.window import pad_bottom_right, padded_size


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each to a token.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels `C` of a token.
        patch_size: `(h, w)` in pixels.
        norm_cfg: Norm after the projection, as mmcv builds it; `None` for none.
        attn_backend: `triton` adds bias and norm in one pass; see `swin_mm.models.layers.lean`.
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
        self.attn_backend = attn_backend
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` in pixels to `(B, ceil(H/h), ceil(W/w), C)` in tokens."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, in_channels)
        x = pad_bottom_right(x, padded_size(x.shape[1:3], self.patch_size)).contiguous()
        x = x.permute(0, 3, 1, 2)  # (B, in_channels, H, W)
        if lean.refuse(self, self.norm, [self.proj], x, "add_norm"):
            return self.norm(self.proj(x).permute(0, 2, 3, 1))
        tokens = F.conv2d(x, self.proj.weight, stride=self.patch_size).permute(0, 2, 3, 1)
        branch, norm = Branch(tokens, self.proj.bias), parameters_of(self.norm)
        return add_norm(None, branch, norm, lean.norm_dtype(tokens), "triton")[1]


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours into one token of twice the channels.

    Args:
        embed_dims: Channels `C` of the input.
        stride: Tokens between neighbourhoods; 2 makes them disjoint.
        norm_cfg: Norm of the joined channels, as mmcv builds it; `None` for none.
        attn_backend: `triton` joins and normalises in one pass; see `swin_mm.models.layers.lean`.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.1, "Patch merging". Parameters are in the
        order of microsoft/Swin-Transformer; mmdet's are in that of `nn.Unfold`.
    """

    reduces_last = True

    def __init__(
        self,
        embed_dims: int,
        stride: int,
        norm_cfg: dict | None,
        attn_backend: AttnBackend = "auto",
    ) -> None:
        super().__init__()
        self.stride = stride
        self.attn_backend = attn_backend
        self.norm = build_norm_layer(norm_cfg, 4 * embed_dims)[1] if norm_cfg else nn.Identity()
        self.reduction = nn.Linear(4 * embed_dims, 2 * embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, ceil(H/stride), ceil(W/stride), 2C)`; edges are zero-padded."""
        # The kernels take disjoint neighbourhoods, normalised before the reduction.
        if (
            self.stride == 2
            and self.reduces_last
            and not lean.refuse(self, self.norm, [], x, "merge_norm")
        ):
            norm = parameters_of(self.norm)
            return self.reduction(merge_norm(x, norm, lean.linear_dtype(x), "triton"))
        height, width = x.shape[1:3]
        rows, columns = -(-height // self.stride), -(-width // self.stride)
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
        return apply_linear(self.reduction, joined, norm=self.norm)


class PatchMergingV2(PatchMerging):
    """Patch merging of V2: the norm follows the reduction.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    reduces_last = False

    def __init__(self, embed_dims: int, stride: int, norm_cfg: dict | None) -> None:
        super().__init__(embed_dims, stride, norm_cfg=None)
        if norm_cfg:
            self.norm = build_norm_layer(norm_cfg, 2 * embed_dims)[1]

    def reduce(self, joined: Tensor) -> Tensor:
        return self.norm(self.reduction(joined))
