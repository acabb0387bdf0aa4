"""What is measured: one workload that every candidate runs."""

import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from mmengine.config import Config

from swin_mm.models.backbones.arguments import Arch
from swin_mm.ops.dispatch import AttnBackend

Size = tuple[int, int]  # (height, width) in pixels

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PATCH = 4  # pixels

# Shorter sides of mmdet's multi-scale training, relative to the largest: 480 to 800 by 32.
# Source: mmdet 3.3.0, configs/swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py.
SCALES = tuple(side / 800 for side in range(480, 801, 32))
SIZE_DIVISOR = 32  # pixels

SWEEPS = {
    "side": (256, 512, 768, 1024, 1536, 2048),
    "batch": (1, 2, 4, 8, 16),
    "window": (4, 7, 8, 12, 16, 24),
    "depth": (2, 6, 12, 18, 24),
}
DEEP_STAGE = 2  # the stage whose blocks `depth` counts: published variants differ in this one


@dataclass(frozen=True)
class Workload:
    """What every candidate runs; a whole model is a `config`, with its losses or predictions."""

    part: Literal["backbone", "neck", "config"]
    version: int  # 1 or 2, of Swin
    arch: Arch
    window: int  # side in tokens
    sizes: tuple[Size, ...]  # steps take them in turn; a time is the mean over all
    batch: int  # images of a step
    mode: Literal[
        "train", "inference"
    ]  # forward and backward; of a config the optimizer's step too
    dtype: str  # key of DTYPES; two-byte types run under autocast
    device: torch.device
    drop_path_rate: float = 0.1
    attn_backend: AttnBackend = "auto"
    config: Config | None = None
    objects: int | None = None  # that a detector finds in each image

    def given_config(self) -> Config:
        """The config of a workload that has one."""
        assert self.config is not None
        return self.config

    @property
    def channels(self) -> list[int]:
        """Channels of each stage."""
        return [self.arch.embed_dims * 2**i for i in range(len(self.arch.depths))]

    def map_sizes(self, size: Size) -> list[Size]:
        """`(H, W)` of each stage's map, in tokens, for an image of `size`."""
        strides = [PATCH * 2**i for i in range(len(self.arch.depths))]
        return [(-(-size[0] // stride), -(-size[1] // stride)) for stride in strides]

    def autocast(self) -> AbstractContextManager:
        """The context that a step runs in."""
        if self.dtype == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.dtype])

    def describe(self) -> str:
        """One line for titles."""
        sizes = [f"{height}x{width}" for height, width in self.sizes]
        shown = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes {min(sizes)} to {max(sizes)}"
        parts = [self.part, shown, f"batch {self.batch}", self.mode, self.dtype]
        if self.config is not None:
            parts[0] = Path(self.config.filename).stem
            parts += [f"{self.objects} objects"] * bool(self.objects)
        else:
            v2 = " V2" if self.version == 2 else ""
            depths = "-".join(map(str, self.arch.depths))
            parts[0] += f" Swin{v2} {self.arch.embed_dims}ch {depths}, window {self.window}"
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON has them."""
        values = asdict(replace(self, config=None))
        values["device"] = str(self.device)
        values["config"] = self.config and Path(self.config.filename).stem
        return {**values.pop("arch")._asdict(), **values}


def multi_scale_sizes(size: Size) -> tuple[Size, ...]:
    """Sizes of multi-scale training up to `size`, in a random order that is always the same."""
    sides = [[round(side * s / SIZE_DIVISOR) * SIZE_DIVISOR for side in size] for s in SCALES]
    sizes = [(height, width) for height, width in sides]
    random.Random(0).shuffle(sizes)
    return tuple(sizes)


def vary(work: Workload, sweep: str, value: int) -> Workload:
    """The workload with one quantity changed, that of a key of `SWEEPS`."""
    if sweep == "side":
        return replace(work, sizes=((value, value),))
    if sweep == "depth":
        depths = list(work.arch.depths)
        depths[DEEP_STAGE] = value
        return replace(work, arch=work.arch._replace(depths=tuple(depths)))
    return replace(work, window=value) if sweep == "window" else replace(work, batch=value)
