"""Masks by small networks whose weights are predicted for each object."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from mmcv.cnn import ConvModule
from mmdet.models.utils import aligned_bilinear
from torch import Tensor, nn

COORDINATES = 2  # x and y from a pixel to the object, beside the features


class MaskBranch(nn.Module):
    """Features of masks on the finest level, from those of the `num_levels` finest ones.

    After their sum come `num_convs` convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        num_levels: int,
        num_convs: int,
        norm_cfg: dict | None,
    ) -> None:
        super().__init__()
        conv_cfg = dict(kernel_size=3, padding=1, norm_cfg=norm_cfg)
        self.refine = nn.ModuleList(
            ConvModule(in_channels, channels, **conv_cfg) for _ in range(num_levels)
        )
        self.tower = nn.Sequential(
            *(ConvModule(channels, channels, **conv_cfg) for _ in range(num_convs)),
            nn.Conv2d(channels, out_channels, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Features `(B, out_channels, H, W)` of maps `(B, in_channels, H_i, W_i)`, finest first."""
        total, *others = [conv(x) for conv, x in zip(self.refine, maps, strict=False)]
        height, width = total.shape[2:]
        for level, coarse in enumerate(others, start=1):
            # Sides that are no multiple were rounded up on the way to the coarser level.
            total = total + aligned_bilinear(coarse, 2**level)[:, :, :height, :width]
        return self.tower(total)


class MaskHead(nn.Module):
    """Both parts, by the names that the official repository has for them."""

    def __init__(self, branch: MaskBranch, head: "DynamicMaskHead") -> None:
        super().__init__()
        self.branch = branch
        self.head = head


class DynamicMaskHead(nn.Module):
    """Draws masks by 1x1 convolutions whose weights come with each object.

    Beside the features, they read how far the object is from a pixel, over the size of interest of
    the object's level, in pixels. Each convolution has a twin with one output, which draws a mask
    to learn from before the last does.
    """

    sizes_of_interest: Tensor  # (L,)

    def __init__(
        self, in_channels: int, channels: int, num_convs: int, sizes: Sequence[int]
    ) -> None:
        super().__init__()
        self.register_buffer("sizes_of_interest", torch.tensor(sizes))
        widths = [in_channels + COORDINATES, *[channels] * (num_convs - 1), 1]
        main = [(wide_out, wide_in) for wide_in, wide_out in pairwise(widths)]
        early = [(1, wide_in) for wide_in in widths[:-2]]
        # As the official repository lays them out.
        self.shapes = [*main, *[(n, 1) for n, _ in main], *early, *[(n, 1) for n, _ in early]]
        self.num_convs = num_convs
        self.num_params = sum(map(math.prod, self.shapes))

    def forward(
        self, features: Tensor, params: Tensor, centers: Tensor, levels: Tensor, stride: int
    ) -> list[Tensor]:
        """Draws masks.

        Args:
            features: `(P, in_channels, H, W)`, of the image of each object.
            params: `(P, num_params)`, weights and biases of the convolutions and of their twins.
            centers: `(P, 2)`, x and y in pixels, from which distances are measured.
            levels: `(P,)`, on which the objects were found.
            stride: Of the features, in pixels.

        Returns:
            Logits `(P, 1, H, W)` after each convolution; in evaluation of the last alone.
        """
        height, width = features.shape[2:]
        sizes = list(map(math.prod, self.shapes))
        split = [
            part.unflatten(1, shape)
            for part, shape in zip(params.split(sizes, dim=1), self.shapes, strict=True)
        ]  # (P, out, in), and (P, out, 1) biases
        n = self.num_convs
        weights, biases, early_weights = split[:n], split[n : 2 * n], split[2 * n : 3 * n - 1]
        early_biases = split[3 * n - 1 :]
        distances = self._measure(centers, levels, (height, width), stride)
        x = torch.cat((distances.to(features.dtype), features.flatten(2)), dim=1)  # (P, in, H*W)
        drawn = []
        for i in range(n):
            if self.training and i < n - 1:
                drawn.append(torch.baddbmm(early_biases[i], early_weights[i], x))
            x = torch.baddbmm(biases[i], weights[i], x)
            x = x.relu() if i < n - 1 else x
        return [logits.unflatten(2, (height, width)) for logits in [*drawn, x]]

    def _measure(
        self, centers: Tensor, levels: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        """How far centres are from the middles of cells, `(P, 2, H*W)`, in sizes of the level."""
        y, x = (torch.arange(n, device=centers.device) * stride + stride // 2 for n in size)
        cells = torch.stack((x.repeat(size[0]), y.repeat_interleave(size[1])))  # (2, H*W)
        return (centers[:, :, None] - cells) / self.sizes_of_interest[levels][:, None, None]
