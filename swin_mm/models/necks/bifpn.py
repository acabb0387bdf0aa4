"""Bidirectional feature pyramid network, as the official RepPoints V2 on Swin has it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_mm.models.necks.fpn import XAVIER_UNIFORM
from swin_mm.registry import MODELS

MIN_SUM = 1e-4  # keeps weights that are all zero from dividing by it


@MODELS.register_module()
class BiFPN(BaseModule):
    """Pyramid that is passed down and up again several times, with learnt weights at each sum.

    Args:
        in_channels: Channels of each input map.
        out_channels: Channels of every output map.
        num_outs: Number of output maps; those beyond the inputs are pooled from the last input.
        num_repeat: How often the pyramid is passed down and up.
        norm_cfg: Norms after convolutions, as mmcv builds them; `None` for none.
        init_cfg: mmengine's initialisation; `None` keeps PyTorch's.

    Raises:
        ValueError: When there are fewer outputs than inputs, or another number of maps than inputs.

    Source:
        Tan et al., EfficientDet, 2020, https://arxiv.org/abs/1911.09070; state dict and numbers as
        https://github.com/SwinTransformer/Swin-Transformer-Object-Detection.

    Examples:
        >>> import torch
        >>> maps = [torch.rand(1, 8 * 2**i, 20 >> i, 28 >> i) for i in range(3)]
        >>> [tuple(out.shape[1:]) for out in BiFPN([8, 16, 32], 16, num_outs=5)(maps)]
        [(16, 20, 28), (16, 10, 14), (16, 5, 7), (16, 3, 4), (16, 2, 2)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int = 5,
        num_repeat: int = 2,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = XAVIER_UNIFORM,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_outs < len(in_channels):
            raise ValueError(
                f"num_outs must be at least {len(in_channels)}, the number of inputs, got "
                f"{num_outs=}"
            )
        self.in_channels = list(in_channels)
        self.num_outs = num_outs
        channels = self.in_channels + [in_channels[-1]] * (num_outs - len(in_channels))
        self.bi_fpn = nn.ModuleList()
        for _ in range(num_repeat):
            self.bi_fpn.append(_Round(channels, out_channels, norm_cfg))
            channels = [out_channels] * num_outs

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Computes `num_outs` maps `(B, out_channels, H_i, W_i)`, finest first.

        Inputs are one map `(B, in_channels[i], H_i, W_i)` for each of `in_channels`.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f"BiFPN was built for {len(self.in_channels)} maps "
                f"(in_channels={self.in_channels}), got {len(inputs)}"
            )
        maps = list(inputs)
        while len(maps) < self.num_outs:
            maps.append(_halve(maps[-1]))
        for step in self.bi_fpn:
            maps = step(maps)
        return tuple(maps)


class _Round(nn.Module):
    """Once down the pyramid and up again."""

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, norm_cfg: dict | None
    ) -> None:
        super().__init__()
        layer_cfg = dict(norm_cfg=norm_cfg, act_cfg=None)
        self.lateral_convs = nn.ModuleList(
            nn.Identity()
            if channels == out_channels
            else ConvModule(channels, out_channels, 1, **layer_cfg)
            for channels in in_channels
        )
        steps = range(len(in_channels) - 1)
        convs = [
            [ConvModule(out_channels, out_channels, 3, padding=1, **layer_cfg) for _ in steps]
            for _ in range(2)
        ]
        self.lateral_combine = nn.ModuleList(_WeightedSum(2) for _ in steps)
        self.lateral_combine_conv = nn.ModuleList(convs[0])
        # The last map has no way past the sum on the way down.
        self.out_combine = nn.ModuleList(_WeightedSum(2 if i == steps[-1] else 3) for i in steps)
        self.out_combine_conv = nn.ModuleList(convs[1])

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        outs = list(laterals)
        for i in range(len(outs) - 2, -1, -1):
            upper = F.interpolate(outs[i + 1], size=outs[i].shape[2:], mode="nearest")
            outs[i] = self.lateral_combine_conv[i](self.lateral_combine[i](outs[i], upper))
        for i in range(len(outs) - 1):
            maps = [_halve(outs[i]), outs[i + 1]]
            if i < len(outs) - 2:
                maps.append(laterals[i + 1])
            outs[i + 1] = self.out_combine_conv[i](self.out_combine[i](*maps))
        return outs


class _WeightedSum(nn.Module):
    """Swish of a sum with learnt, non-negative weights that add up to one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(1, 1, 1, 1, count))

    def forward(self, *maps: Tensor) -> Tensor:
        weights = self.weights.flatten().relu()
        weights = weights / (weights.sum() + MIN_SUM)
        parts = [weight * x for weight, x in zip(weights.unbind(), maps, strict=True)]
        return F.silu(sum(parts[1:], start=parts[0]))


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, padding=1)
