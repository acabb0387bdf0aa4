"""Feature pyramid network for channels-last maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_mm.registry import MODELS

XAVIER_UNIFORM = dict(type="Xavier", layer="Conv2d", distribution="uniform")
EXTRA_CONV_SOURCES = ("on_input", "on_lateral", "on_output")


@MODELS.register_module()
class FPN(BaseModule):
    """Feature pyramid network with the arguments and the state dict of mmdet's `FPN`.

    Args:
        in_channels: Channels of each input map.
        out_channels: Channels of every output map.
        num_outs: Number of output maps.
        start_level: First input map that is used.
        end_level: Last input map that is used; -1 is the last one given. Extra levels need -1.
        add_extra_convs: Where the levels beyond the inputs come from: `False` subsamples the last
            output; `'on_input'`, `'on_lateral'` or `'on_output'` is the map that a strided
            convolution takes; `True` means `'on_input'`.
        relu_before_extra_convs: Whether a ReLU precedes every extra convolution but the first.
        no_norm_on_lateral: Whether lateral convolutions go without a norm.
        conv_cfg: Convolutions, as mmcv builds them.
        norm_cfg: Norms, as mmcv builds them.
        act_cfg: Activations, as mmcv builds them; `None` for none.
        upsample_cfg: Arguments of `torch.nn.functional.interpolate` on the way down.
        init_cfg: mmengine's initialisation; `None` keeps PyTorch's.

    Raises:
        ValueError: When arguments or the number of inputs disagree.

    Source:
        Lin et al., Feature Pyramid Networks for Object Detection, 2017,
        https://arxiv.org/abs/1612.03144; numbers as mmdet 3.3.0.

    Examples:
        >>> import torch
        >>> maps = [torch.rand(1, 8 * 2**i, 40 >> i, 56 >> i) for i in range(4)]
        >>> [tuple(out.shape[1:]) for out in FPN([8, 16, 32, 64], 16, num_outs=5)(maps)]
        [(16, 40, 56), (16, 20, 28), (16, 10, 14), (16, 5, 7), (16, 3, 4)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        upsample_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = XAVIER_UNIFORM,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_channels = list(in_channels)
        self.num_outs = num_outs
        self.start_level = start_level
        self.end_level = _resolve_levels(self.in_channels, num_outs, start_level, end_level)
        self.add_extra_convs = _resolve_extra_convs(add_extra_convs)
        self.relu_before_extra_convs = relu_before_extra_convs
        self.upsample_cfg = dict(upsample_cfg or {"mode": "nearest"})

        layer_cfg = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, inplace=False)
        lateral_cfg = {**layer_cfg, "norm_cfg": None if no_norm_on_lateral else norm_cfg}
        used = self.in_channels[start_level : self.end_level + 1]
        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, **lateral_cfg) for channels in used
        )
        self.fpn_convs = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, padding=1, **layer_cfg) for _ in used
        )
        if self.add_extra_convs:
            for i in range(num_outs - len(used)):
                from_input = i == 0 and self.add_extra_convs == "on_input"
                channels = used[-1] if from_input else out_channels
                self.fpn_convs.append(
                    ConvModule(channels, out_channels, 3, stride=2, padding=1, **layer_cfg)
                )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Computes `num_outs` maps `(B, out_channels, H_i, W_i)`, finest first.

        Inputs are one map `(B, in_channels[i], H_i, W_i)` for each of `in_channels`.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f"FPN was built for {len(self.in_channels)} maps (in_channels={self.in_channels}), "
                f"got {len(inputs)}"
            )
        used = inputs[self.start_level : self.end_level + 1]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, used, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + self._upsample(laterals[i], laterals[i - 1])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        return tuple(self._extend(outs, used[-1], laterals[-1]))

    def _upsample(self, coarse: Tensor, fine: Tensor) -> Tensor:
        if "scale_factor" in self.upsample_cfg:  # interpolate takes a factor or a size, not both
            return F.interpolate(coarse, **self.upsample_cfg)
        return F.interpolate(coarse, size=fine.shape[2:], **self.upsample_cfg)

    def _extend(self, outs: list[Tensor], last_input: Tensor, last_lateral: Tensor) -> list[Tensor]:
        if not self.add_extra_convs:
            while len(outs) < self.num_outs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
            return outs
        sources = {"on_input": last_input, "on_lateral": last_lateral, "on_output": outs[-1]}
        x = sources[self.add_extra_convs]
        for i in range(len(outs), self.num_outs):
            is_first = i == len(self.lateral_convs)
            x = F.relu(x) if self.relu_before_extra_convs and not is_first else x
            x = self.fpn_convs[i](x)
            outs.append(x)
        return outs


def _resolve_levels(in_channels: list[int], num_outs: int, start_level: int, end_level: int) -> int:
    """Index of the last input that is used, after checking the three numbers."""
    last = len(in_channels) - 1
    if end_level not in range(-1, last + 1) or not 0 <= start_level <= last:
        raise ValueError(
            f"levels must lie in [0, {last}] for {len(in_channels)} inputs, got {start_level=}, "
            f"{end_level=}"
        )
    used = (last if end_level == -1 else end_level) - start_level + 1
    takes_extra = end_level in (-1, last)
    if num_outs < used or used < 1 or (num_outs > used and not takes_extra):
        wanted = f"at least {used}" if takes_extra else f"exactly {used}"
        raise ValueError(
            f"num_outs must be {wanted} for {start_level=}, {end_level=}, got {num_outs=}"
        )
    return start_level + used - 1


def _resolve_extra_convs(add_extra_convs: bool | str) -> str | None:
    if isinstance(add_extra_convs, bool):
        return "on_input" if add_extra_convs else None
    if add_extra_convs not in EXTRA_CONV_SOURCES:
        raise ValueError(
            f"add_extra_convs must be a bool or one of {EXTRA_CONV_SOURCES}, "
            f"got {add_extra_convs!r}"
        )
    return add_extra_convs
