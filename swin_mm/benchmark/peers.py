"""Backbones and necks of each library, made to do the same work.

A backbone takes images of any size, has windows of one size with every second block shifted,
stochastic depth that grows with depth, and a norm on the map of each stage. Norms that a library
lacks are added here; pooling and classification heads are left out. `DIFFERENCES` lists the rest.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from swin_mm.benchmark.workload import PATCH, Workload
from swin_mm.models import FPN, SwinTransformer, SwinTransformerV2

FPN_CHANNELS = 256
FPN_LEVELS = 5

ADDED_NORMS = "norms of the maps added"
TORCHVISION = f"{ADDED_NORMS}; does not shift maps that are no larger than a window"
# By library and version of Swin.
DIFFERENCES = {
    ("mmdet", 1): "maps are contiguous NCHW",
    ("mmseg", 1): "maps are contiguous NCHW",
    ("timm", 1): f"{ADDED_NORMS}; shifts before it pads, which changes values, not time",
    ("timm", 2): f"{ADDED_NORMS}; shifts before it pads, which changes values, not time",
    ("torchvision", 1): TORCHVISION,
    ("torchvision", 2): TORCHVISION,
    ("transformers", 1): "maps are contiguous NCHW",
    ("transformers", 2): f"{ADDED_NORMS}; shrinks windows to maps that are smaller",
}


class MissingPeerError(ValueError):
    """A library that cannot be measured here: not installed, or without such a model."""


class StagedBackbone(nn.Module):
    """A network with a map, after a norm, of each stage; `embed` gives `(B, H, W, C)`."""

    def __init__(
        self, embed: nn.Module, stages: Sequence[nn.Module], channels: Sequence[int]
    ) -> None:
        super().__init__()
        self.embed = embed
        self.stages = nn.ModuleList(stages)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.embed(x)
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


class TransformersBackbone(nn.Module):
    """A backbone of transformers; V2 has no norms of its own, so `norms` are added."""

    def __init__(self, backbone: nn.Module, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.backbone = backbone
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        maps = list(self.backbone(x).feature_maps)
        for i, norm in enumerate(self.norms):
            maps[i] = norm(maps[i].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps


class TorchvisionFPN(nn.Module):
    """torchvision's pyramid with mmdet's fifth level, from a sequence of maps."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        from torchvision.ops import feature_pyramid_network as pyramid

        pool = pyramid.LastLevelMaxPool()
        self.fpn = pyramid.FeaturePyramidNetwork(list(channels), FPN_CHANNELS, pool)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(self.fpn(OrderedDict((str(i), m) for i, m in enumerate(maps))).values())


def build_module(library: str, work: Workload) -> nn.Module:
    """Builds a library's backbone or neck with random weights, on the CPU.

    Raises:
        MissingPeerError: The library has no such module.
    """
    builders = BACKBONES if work.part == "backbone" else NECKS
    if library not in builders:
        raise MissingPeerError(f"{library} has no feature pyramid of its own")
    return builders[library](work)


def _shared_arguments(work: Workload) -> dict:
    return dict(**work.arch._asdict(), window_size=work.window, drop_path_rate=work.drop_path_rate)


def _build_own(work: Workload) -> nn.Module:
    kind = SwinTransformer if work.version == 1 else SwinTransformerV2
    return kind(**_shared_arguments(work), attn_backend=work.attn_backend)


def _build_stock(framework: str) -> Callable[[Workload], nn.Module]:
    def build(work: Workload) -> nn.Module:
        if work.version == 2:
            raise MissingPeerError(f"{framework} has no Swin V2")
        stock = import_module(f"{framework}.models.backbones.swin").SwinTransformer
        return stock(**_shared_arguments(work))

    return build


def _build_timm(work: Workload) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer as V1
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as V2

    model = (V1 if work.version == 1 else V2)(
        img_size=work.sizes[0],
        patch_size=PATCH,
        num_classes=0,
        embed_dim=work.arch.embed_dims,
        depths=work.arch.depths,
        num_heads=work.arch.num_heads,
        window_size=work.window,
        drop_path_rate=work.drop_path_rate,
        always_partition=True,  # windows of one size, shifted, also on small maps
        strict_img_size=len(work.sizes) == 1,
    )
    return StagedBackbone(model.patch_embed, list(model.layers), work.channels)


def _build_torchvision(work: Workload) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    kinds = {}
    if work.version == 2:
        kinds = dict(block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2)
    features = swin.SwinTransformer(
        patch_size=[PATCH, PATCH],
        embed_dim=work.arch.embed_dims,
        depths=list(work.arch.depths),
        num_heads=list(work.arch.num_heads),
        window_size=[work.window, work.window],
        stochastic_depth_prob=work.drop_path_rate,
        **kinds,
    ).features
    # Patch embedding, then stages and mergings in turn.
    merged = [nn.Sequential(*features[i : i + 2]) for i in range(2, len(features), 2)]
    return StagedBackbone(features[0], [features[1], *merged], work.channels)


def _build_transformers(work: Workload) -> nn.Module:
    import transformers

    is_v1 = work.version == 1
    # Configs take `out_features` by `**kwargs`.
    config: Any = transformers.SwinConfig if is_v1 else transformers.Swinv2Config
    kind: Any = transformers.SwinBackbone if is_v1 else transformers.Swinv2Backbone
    backbone = kind(
        config(
            image_size=work.sizes[0],
            patch_size=PATCH,
            embed_dim=work.arch.embed_dims,
            depths=list(work.arch.depths),
            num_heads=list(work.arch.num_heads),
            window_size=work.window,
            drop_path_rate=work.drop_path_rate,
            out_features=[f"stage{i + 1}" for i in range(len(work.arch.depths))],
        )
    )
    if is_v1:
        with suppress(AttributeError):  # a norm after the last stage, whose result is not used
            backbone.swin.layernorm = nn.Identity()
    return TransformersBackbone(backbone, [] if is_v1 else map(nn.LayerNorm, work.channels))


BACKBONES: dict[str, Callable[[Workload], nn.Module]] = {
    "swin_mm": _build_own,
    "mmdet": _build_stock("mmdet"),
    "mmseg": _build_stock("mmseg"),
    "timm": _build_timm,
    "torchvision": _build_torchvision,
    "transformers": _build_transformers,
}


NECKS: dict[str, Callable[[Workload], nn.Module]] = {
    "swin_mm": lambda work: FPN(work.channels, FPN_CHANNELS, FPN_LEVELS),
    "mmdet": lambda work: import_module("mmdet.models.necks.fpn").FPN(
        work.channels, FPN_CHANNELS, FPN_LEVELS
    ),
    "torchvision": lambda work: TorchvisionFPN(work.channels),
}


def make_inputs(work: Workload) -> list[list[Tensor]]:
    """Random images, or for a neck maps, for each image size; the same for all libraries.

    Returns:
        For each size one batch `(B, 3, H, W)`, or four maps `(B, C_i, H_i, W_i)` in channels-last
        memory, which want a gradient in training.
    """
    generator = torch.Generator().manual_seed(0)

    def make(channels: int, height: int, width: int) -> Tensor:
        x = torch.randn((work.batch, height, width, channels), generator=generator)
        return x.to(work.device).permute(0, 3, 1, 2)

    if work.part == "backbone":
        return [[make(3, *size).contiguous()] for size in work.sizes]
    return [
        [
            make(channels, *side).requires_grad_(work.mode == "train")
            for channels, side in zip(work.channels, work.map_sizes(size), strict=True)
        ]
        for size in work.sizes
    ]
