"""What is measured: one piece of work that every candidate does."""

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.config import Config

from swin_mm.ops.dispatch import AttnBackend

Size = tuple[int, int]  # (height, width) in pixels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATCH = 4  # pixels
FPN_CHANNELS = 256
FPN_LEVELS = 5

# Shorter sides of mmdet's multi-scale training, in units of the largest: 480 to 800 by 32.
# Source: mmdet 3.3.0, configs/swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py.
SCALES = tuple(side / 800 for side in range(480, 801, 32))
SCALED_TO = 32  # pixels that sides of changing sizes are multiples of

SWEEPS = {
    "side": (256, 512, 768, 1024, 1536, 2048),
    "batch": (1, 2, 4, 8, 16),
    "window": (4, 7, 8, 12, 16, 24),
    "depth": (2, 6, 12, 18, 24),
}
DEEP_STAGE = 2  # the stage whose blocks `depth` counts; published variants differ in it alone


@dataclass(frozen=True)
class Work:
    """One piece of work.

    Attributes:
        part: What is measured: the backbone, the neck on its maps, or a whole model with its
            losses or predictions.
        version: 1 or 2, of the backbone.
        embed_dims: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Heads of each stage.
        window: Side of a window, in tokens.
        sizes: Sizes of the images. Steps take them in turn, and a time is the mean over all.
        batch: Images of a step.
        mode: `train` is forward and backward, of a whole model also the optimizer's step.
        dtype: Key of `DTYPES`; those of two bytes by autocast.
        device: Where it runs.
        casts_weights: Whether weights and images are converted once instead of by autocast.
        attn_backend: Of swin_mm's backbone; see `SwinTransformer`.
        config: Config of the whole model.
    """

    part: Literal["backbone", "neck", "config"]
    version: int
    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int
    sizes: tuple[Size, ...]
    batch: int
    mode: Literal["train", "inference"]
    dtype: str
    device: torch.device
    drop_path_rate: float = 0.1
    casts_weights: bool = False
    attn_backend: AttnBackend = "auto"
    config: Config | None = None

    @property
    def channels(self) -> list[int]:
        """Channels of each stage."""
        return [self.embed_dims * 2**i for i in range(len(self.depths))]

    def map_sizes(self, size: Size) -> list[Size]:
        """`(H, W)` of each stage's map, in tokens, of an image of `size`."""
        strides = [PATCH * 2**i for i in range(len(self.depths))]
        # Halving and rounding up, again and again, is dividing once and rounding up.
        return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]

    def autocast(self) -> torch.autocast:
        """The context that a step runs in."""
        enabled = self.dtype != "fp32" and not self.casts_weights
        # The cache of cast weights ends with the context, and graph capture does not allow it.
        is_captured = self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        return torch.autocast(
            self.device.type, DTYPES[self.dtype], enabled, cache_enabled=not is_captured
        )

    def describe(self) -> str:
        """One line, without what differs between the points of a sweep."""
        sizes = [f"{height}x{width}" for height, width in self.sizes]
        shown = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes {min(sizes)} to {max(sizes)}"
        parts = [self.part, shown, f"batch {self.batch}", self.mode, self.dtype]
        if self.config is not None:
            parts[0] = Path(self.config.filename).stem
        else:
            v2 = " V2" if self.version == 2 else ""
            depths = "-".join(map(str, self.depths))
            parts[0] += f" Swin{v2} {self.embed_dims}ch {depths}, window {self.window}"
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON has them."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["device"] = str(self.device)
        values["config"] = self.config and Path(self.config.filename).stem
        return values


def changing_sizes(size: Size) -> tuple[Size, ...]:
    """Sizes of multi-scale training, the largest of which is `size`, in a random order.

    The order is always the same.
    """
    sizes = [tuple(round(side * s / SCALED_TO) * SCALED_TO for side in size) for s in SCALES]
    random.Random(0).shuffle(sizes)
    return tuple(sizes)


def vary(work: Work, sweep: str, value: int) -> Work:
    """The work with one quantity changed.

    Args:
        work: The work.
        sweep: Key of `SWEEPS`.
        value: Side of the image in pixels, images, side of a window in tokens, or blocks of the
            third stage.
    """
    if sweep == "side":
        return replace(work, sizes=((value, value),))
    if sweep == "depth":
        depths = list(work.depths)
        depths[DEEP_STAGE] = value
        return replace(work, depths=tuple(depths))
    return replace(work, **{sweep: value})
