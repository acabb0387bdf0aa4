"""The backbone of each library, made to do the same work.

The work is that of a backbone for dense prediction: any image size, windows of one size with every
second block shifted, stochastic depth that grows with depth, a norm on the map of each of the four
stages. Where a library's class does less, the missing norms are added here; where it does more
(pooling, a classification head), that is left out. What remains different is in `DIFFERENCES`.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from swin_mm.benchmark.work import PATCH, Work
from swin_mm.models import SwinTransformer, SwinTransformerV2

ADDED_NORMS = "norms of the maps added"
# By library and version of Swin.
DIFFERENCES = {
    ("mmdet", 1): "maps are contiguous NCHW",
    ("mmseg", 1): "maps are contiguous NCHW",
    ("timm", 1): f"{ADDED_NORMS}; shifts before it pads: as fast, but other numbers where the "
    "window does not divide a map",
    ("timm", 2): f"{ADDED_NORMS}; shifts before it pads, as in V1",
    ("torchvision", 1): f"{ADDED_NORMS}; does not shift maps that are no larger than a window",
    ("torchvision", 2): f"{ADDED_NORMS}; does not shift maps that are no larger than a window",
    ("transformers", 1): "maps are contiguous NCHW",
    ("transformers", 2): f"{ADDED_NORMS}; shrinks windows to maps that are smaller",
}


class MissingPeerError(ValueError):
    """A library that cannot be measured here: it is not installed, or has nothing like it."""


class Staged(nn.Module):
    """Modules of a classification network, run so that each stage gives a map.

    Args:
        embed: From the image to `(B, H, W, C)`.
        stages: Blocks of each stage.
        mergings: What comes before each stage; the first is the identity.
        channels: Channels of each stage.
    """

    def __init__(
        self,
        embed: nn.Module,
        stages: Sequence[nn.Module],
        mergings: Sequence[nn.Module],
        channels: Sequence[int],
    ) -> None:
        super().__init__()
        self.embed = embed
        self.stages = nn.ModuleList(stages)
        self.mergings = nn.ModuleList(mergings)
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(B, 3, H, W)` to a map `(B, C_i, H_i, W_i)` of each stage."""
        x = self.embed(x)
        maps = []
        for merging, stage, norm in zip(self.mergings, self.stages, self.norms, strict=True):
            x = stage(merging(x))
            maps.append(norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


class HuggingFace(nn.Module):
    """A backbone of transformers, with norms where its class has none."""

    def __init__(self, backbone: nn.Module, channels: Sequence[int] = ()) -> None:
        super().__init__()
        self.backbone = backbone
        self.norms = nn.ModuleList(nn.LayerNorm(c) for c in channels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone(x).feature_maps
        if not self.norms:
            return maps
        pairs = zip(self.norms, maps, strict=True)
        return tuple(norm(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, m in pairs)


def build_backbone(library: str, work: Work) -> nn.Module:
    """Builds a backbone with random weights.

    Args:
        library: Key of `LIBRARIES`.
        work: What it shall do.

    Returns:
        A module from images `(B, 3, H, W)` to a tuple of four maps, on the CPU.

    Raises:
        MissingPeerError: The library is not installed or has no such backbone.
    """
    return LIBRARIES[library](work)


def check_maps(work: Work, maps: Sequence[Tensor], size: tuple[int, int]) -> None:
    """Raises MissingPeerError where the maps are not those that the work asks for."""
    wanted = [
        (work.batch, channels, *side)
        for channels, side in zip(work.channels, work.map_sizes(size), strict=True)
    ]
    found = [tuple(m.shape) for m in maps]
    if found != wanted:
        raise MissingPeerError(f"does other work: its maps are {found}, not {wanted}")


def _shared_arguments(work: Work) -> dict:
    return dict(
        embed_dims=work.embed_dims,
        depths=work.depths,
        num_heads=work.num_heads,
        window_size=work.window,
        drop_path_rate=work.drop_path_rate,
    )


def _build_own(work: Work) -> nn.Module:
    kind = SwinTransformer if work.version == 1 else SwinTransformerV2
    return kind(**_shared_arguments(work), attn_backend=work.attn_backend)


def _build_mmdet(work: Work) -> nn.Module:
    _refuse_v2(work, "mmdet")
    from mmdet.models.backbones.swin import SwinTransformer as Stock

    return Stock(**_shared_arguments(work))


def _build_mmseg(work: Work) -> nn.Module:
    _refuse_v2(work, "mmseg")
    from mmseg.models.backbones.swin import SwinTransformer as Stock

    return Stock(**_shared_arguments(work))


def _refuse_v2(work: Work, library: str) -> None:
    if work.version == 2:
        raise MissingPeerError(f"{library} has no Swin V2")


def _build_timm(work: Work) -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer as V1
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as V2

    model = (V1 if work.version == 1 else V2)(
        img_size=work.sizes[0],
        patch_size=PATCH,
        num_classes=0,
        embed_dim=work.embed_dims,
        depths=work.depths,
        num_heads=work.num_heads,
        window_size=work.window,
        drop_path_rate=work.drop_path_rate,
        always_partition=True,  # windows of one size, shifted, also on small maps
        strict_img_size=len(work.sizes) == 1,
    )
    # Its stages begin with their merging.
    mergings = [nn.Identity() for _ in model.layers]
    return Staged(model.patch_embed, model.layers, mergings, work.channels)


def _build_torchvision(work: Work) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    kinds = {}
    if work.version == 2:
        kinds = dict(block=swin.SwinTransformerBlockV2, downsample_layer=swin.PatchMergingV2)
    features = swin.SwinTransformer(
        patch_size=[PATCH, PATCH],
        embed_dim=work.embed_dims,
        depths=list(work.depths),
        num_heads=list(work.num_heads),
        window_size=[work.window, work.window],
        stochastic_depth_prob=work.drop_path_rate,
        **kinds,
    ).features
    # Patch embedding, then stages and mergings in turn.
    mergings = [nn.Identity(), *features[2::2]]
    return Staged(features[0], features[1::2], mergings, work.channels)


def _build_transformers(work: Work) -> nn.Module:
    import transformers

    is_v1 = work.version == 1
    config = transformers.SwinConfig if is_v1 else transformers.Swinv2Config
    kind = transformers.SwinBackbone if is_v1 else transformers.Swinv2Backbone
    backbone = kind(
        config(
            image_size=work.sizes[0],
            patch_size=PATCH,
            embed_dim=work.embed_dims,
            depths=list(work.depths),
            num_heads=list(work.num_heads),
            window_size=work.window,
            drop_path_rate=work.drop_path_rate,
            out_features=[f"stage{i + 1}" for i in range(len(work.depths))],
        )
    )
    if is_v1:
        with suppress(AttributeError):  # of the norm after the last stage, whose result is not used
            backbone.swin.layernorm = nn.Identity()
    return HuggingFace(backbone, () if is_v1 else work.channels)


LIBRARIES: dict[str, Callable[[Work], nn.Module]] = {
    "swin_mm": _build_own,
    "mmdet": _build_mmdet,
    "mmseg": _build_mmseg,
    "timm": _build_timm,
    "torchvision": _build_torchvision,
    "transformers": _build_transformers,
}


def make_images(work: Work) -> list[Tensor]:
    """A batch of random images of each size, `(B, 3, H, W)`, the same for all libraries."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn((work.batch, 3, *size), generator=generator).to(work.device)
        for size in work.sizes
    ]
