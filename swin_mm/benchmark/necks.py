"""The feature pyramid of each library, on the maps that the backbone would give."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from swin_mm.benchmark.backbones import MissingPeerError
from swin_mm.benchmark.work import FPN_CHANNELS, FPN_LEVELS, Work
from swin_mm.models import FPN


class TorchvisionFPN(nn.Module):
    """torchvision's pyramid with the fifth level that mmdet's has, from a sequence of maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import (
            FeaturePyramidNetwork,
            LastLevelMaxPool,
        )

        self.fpn = FeaturePyramidNetwork(list(channels), FPN_CHANNELS, LastLevelMaxPool())

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        named = OrderedDict((str(i), m) for i, m in enumerate(maps))
        return tuple(self.fpn(named).values())


def build_neck(library: str, work: Work) -> nn.Module:
    """Builds a neck with random weights; from four maps to five.

    Raises:
        MissingPeerError: The library has none.
    """
    if library not in LIBRARIES:
        raise MissingPeerError(f"{library} has no feature pyramid of its own")
    return LIBRARIES[library](work)


def make_maps(work: Work) -> list[list[Tensor]]:
    """For each image size, random maps in channels-last memory, as `SwinTransformer` gives them.

    They are the same for all libraries, and leaves that want a gradient in training.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for size in work.sizes:
        maps = []
        for channels, side in zip(work.channels, work.map_sizes(size), strict=True):
            x = torch.randn((work.batch, *side, channels), generator=generator)
            x = x.to(work.device).permute(0, 3, 1, 2)
            maps.append(x.requires_grad_(work.mode == "train"))
        inputs.append(maps)
    return inputs


def _build_own(work: Work) -> nn.Module:
    return FPN(work.channels, FPN_CHANNELS, FPN_LEVELS)


def _build_mmdet(work: Work) -> nn.Module:
    from mmdet.models.necks.fpn import FPN as Stock

    return Stock(work.channels, FPN_CHANNELS, FPN_LEVELS)


LIBRARIES: dict[str, Callable[[Work], nn.Module]] = {
    "swin_mm": _build_own,
    "mmdet": _build_mmdet,
    "torchvision": lambda work: TorchvisionFPN(work.channels),
}
