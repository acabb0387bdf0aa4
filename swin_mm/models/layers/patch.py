"""Patch embedding and patch merging, channels-last."""

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from swin_mm.ops.window import pad_bottom_right, padded_size

# Microsoft's order of the 2x2 neighbours in the merged channels, as (row, column) offsets.
MERGE_ORDER = ((0, 0), (1, 0), (0, 1), (1, 1))


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each to a token.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels `C` of a token.
        patch_size: `(h, w)` in pixels.
        norm_cfg: Norm after the projection, as mmcv builds it; `None` for none.
    """

    def __init__(
        self, in_channels: int, embed_dims: int, patch_size: tuple[int, int], norm_cfg: dict | None
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = build_norm_layer(norm_cfg, embed_dims)[1] if norm_cfg else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_channels, H, W)` in pixels to `(B, ceil(H/h), ceil(W/w), C)` in tokens."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, in_channels)
        x = pad_bottom_right(x, padded_size(x.shape[1:3], self.patch_size)).contiguous()
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Joins 2x2 neighbours into one token of twice the channels.

    Args:
        embed_dims: Channels `C` of the input.
        stride: Tokens between neighbourhoods; 2 makes them disjoint.
        norm_cfg: Norm of the joined channels, as mmcv builds it; `None` for none.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.1, "Patch merging". Parameters are in the
        order of microsoft/Swin-Transformer; mmdet's are in that of `nn.Unfold`.
    """

    def __init__(self, embed_dims: int, stride: int, norm_cfg: dict | None) -> None:
        super().__init__()
        self.stride = stride
        self.norm = build_norm_layer(norm_cfg, 4 * embed_dims)[1] if norm_cfg else nn.Identity()
        self.reduction = nn.Linear(4 * embed_dims, 2 * embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, W, C)` to `(B, ceil(H/stride), ceil(W/stride), 2C)`; edges are zero-padded."""
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
        return self.reduction(self.norm(joined))


class PatchMergingV2(PatchMerging):
    """Patch merging of V2: the norm follows the reduction.

    Source:
        Liu et al., Swin Transformer V2, 2022, section 3.2.
    """

    def __init__(self, embed_dims: int, stride: int, norm_cfg: dict | None) -> None:
        super().__init__(embed_dims, stride, norm_cfg=None)
        if norm_cfg:
            self.norm = build_norm_layer(norm_cfg, 2 * embed_dims)[1]

    def reduce(self, joined: Tensor) -> Tensor:
        return self.norm(self.reduction(joined))
