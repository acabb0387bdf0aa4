"""The Swins of other libraries, with random weights, as functions from an image to stage maps."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from swin_mm.models import SwinTransformer
from swin_mm.models.backbones.swin_v2 import SwinTransformerV2


class Case(NamedTuple):
    """A Swin to be compared.

    Libraries do not shift windows where the map is no larger, and some shrink them there, while
    this package does neither, as mmdet. Stages in which that matters are left out of the
    comparison; a stage of a single block, which nobody shifts, may have a map of one window.

    Attributes:
        version: 1 or 2.
        embed_dims: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        window: Side of a window.
        image: Side of an image in pixels, so that no map of a stage needs padding.
        stages: How many stages are compared.
    """

    version: int
    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int
    image: int
    stages: int

    @property
    def arguments(self) -> dict:
        """Those of our backbone."""
        return dict(
            embed_dims=self.embed_dims,
            depths=self.depths,
            num_heads=self.num_heads,
            window_size=self.window,
            drop_path_rate=0.0,
        )

    def build(self, **arguments) -> nn.Module:
        """Builds our backbone."""
        backbone = SwinTransformer if self.version == 1 else SwinTransformerV2
        return backbone(**(self.arguments | arguments)).eval()


SMALL = (8, (2, 2, 2, 1), (1, 2, 2, 4))
TINY = (96, (2, 2, 6, 2), (3, 6, 12, 24))
BASE = (128, (2, 2, 18, 2), (4, 8, 16, 32))
SHALLOW_BASE = (128, (2, 2, 1, 1), (4, 8, 16, 32))

CASES = {
    "small-v1": Case(1, *SMALL, 7, 224, 4),
    "small-v2": Case(2, *SMALL, 8, 256, 4),
    "tiny-v1": Case(1, *TINY, 7, 224, 3),
    "tiny-v2": Case(2, *TINY, 8, 256, 3),
    "base-v1": Case(1, *BASE, 7, 224, 3),
    "base-v2": Case(2, *BASE, 8, 256, 3),
    "shallow-base-v1-window12": Case(1, *SHALLOW_BASE, 12, 192, 3),
    "shallow-base-v2-window16": Case(2, *SHALLOW_BASE, 16, 256, 3),
}


class Reference(NamedTuple):
    """A library's Swin.

    Attributes:
        module: It, with random weights.
        state: What its files hold.
        compute_maps: From an image `(B, 3, H, W)` to a map `(B, C_i, H_i, W_i)` for each stage,
            before any norm of the output unless `has_norms`.
        has_norms: Whether the library has norms of outputs.
    """

    module: nn.Module
    state: dict[str, Tensor]
    compute_maps: Callable[[Tensor], list[Tensor]]
    has_norms: bool = False


def draw_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draws all parameters anew, matrices so that activations keep their magnitude."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.7 * noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 + 0.2 * noise)
    return module.eval()


def build_timm(case: Case) -> Reference:
    model = timm.models.SwinTransformer if case.version == 1 else timm.models.SwinTransformerV2
    module = draw_weights(
        model(
            img_size=case.image,
            embed_dim=case.embed_dims,
            depths=case.depths,
            num_heads=case.num_heads,
            window_size=case.window,
            num_classes=5,
        )
    )

    def compute_maps(image):
        return module.forward_intermediates(image, intermediates_only=True)

    return Reference(module, module.state_dict(), compute_maps)


def build_torchvision(case: Case) -> Reference:
    v2 = dict(block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2)
    module = draw_weights(
        torchvision.models.SwinTransformer(
            patch_size=[4, 4],
            embed_dim=case.embed_dims,
            depths=list(case.depths),
            num_heads=list(case.num_heads),
            window_size=[case.window, case.window],
            num_classes=5,
            **(v2 if case.version == 2 else {}),
        )
    )

    def compute_maps(image):
        maps = []
        for i, part in enumerate(module.features):
            image = part(image)
            if i % 2:
                maps.append(image.permute(0, 3, 1, 2))
        return maps

    return Reference(module, module.state_dict(), compute_maps)


def build_huggingface(case: Case) -> Reference:
    import transformers

    version = "" if case.version == 1 else "v2"
    config = getattr(transformers, f"Swin{version}Config")(
        image_size=case.image,
        embed_dim=case.embed_dims,
        depths=list(case.depths),
        num_heads=list(case.num_heads),
        window_size=case.window,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    module = draw_weights(getattr(transformers, f"Swin{version}Backbone")(config))

    def compute_maps(image):
        return module(image).feature_maps

    return Reference(module, saved(module), compute_maps, has_norms=case.version == 1)


def saved(module: nn.Module) -> dict[str, Tensor]:
    """What `save_pretrained` writes; its names differ from those of `state_dict`."""
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


BUILDERS = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "Hugging Face": build_huggingface,
}


def normalise(map_: Tensor) -> Tensor:
    """A norm of outputs at its initial value."""
    return F.layer_norm(map_.permute(0, 2, 3, 1), map_.shape[1:2]).permute(0, 3, 1, 2)
