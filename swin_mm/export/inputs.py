"""From the pixels of a picture to what a model takes: what a data preprocessor does, recorded."""

from typing import Any, NamedTuple

import torch.nn.functional as F
from mmdet.structures import DetDataSample
from torch import Tensor, nn


class Batch(NamedTuple):
    """Images as a model takes them.

    Attributes:
        images: `(B, bands, Hp, Wp)` float32, normalised and padded.
        height: Of the images without padding.
        width: Likewise.
    """

    images: Tensor
    height: int
    width: int

    def samples(self) -> list[DetDataSample]:
        """The data samples that mmdet's transformers ask for sizes."""
        shapes = dict(
            img_shape=(self.height, self.width), batch_input_shape=tuple(self.images.shape[2:])
        )
        return [DetDataSample(metainfo=shapes) for _ in range(self.images.shape[0])]


class ImageInput(nn.Module):
    """Turns, normalises and pads images of one size, as a `preprocessor` of mmdet, mmseg or ours.

    `flip_bands` is whether the model takes the bands in the reverse of the order that they come in.
    """

    def __init__(self, preprocessor: Any, flip_bands: bool) -> None:
        super().__init__()
        self.flip_bands = flip_bands
        self.is_normalised = preprocessor._enable_normalize
        self.mean: Tensor
        self.std: Tensor
        if self.is_normalised:
            self.register_buffer("mean", preprocessor.mean.clone().float())
            self.register_buffer("std", preprocessor.std.clone().float())
        # A segmentor's padding outside of training is in `test_cfg`.
        is_segmentor = hasattr(preprocessor, "test_cfg")
        padding = (preprocessor.test_cfg or {}) if is_segmentor else {}
        divisor = padding.get("size_divisor") if is_segmentor else preprocessor.pad_size_divisor
        self.divisor = max(divisor or 1, 1)
        self.least = tuple(padding.get("size") or (1, 1))
        self.pad_value = float(preprocessor.pad_val if is_segmentor else preprocessor.pad_value)

    @property
    def pads_to_size(self) -> bool:
        """Whether images are padded to a size of their own, not to a multiple."""
        return self.least != (1, 1)

    def forward(self, image: Tensor) -> Batch:
        """Prepares images `(B, H, W, bands)`, uint8."""
        height, width = image.shape[1:3]
        x = image.permute(0, 3, 1, 2).float()
        if self.flip_bands:
            x = x.flip(1)
        if self.is_normalised:
            x = (x - self.mean) / self.std
        if self.divisor > 1:
            # Not `-(-side // divisor)`: ONNX rounds a negative quotient towards zero.
            bottom, right = (
                (side + self.divisor - 1) // self.divisor * self.divisor - side
                for side in (height, width)
            )
            x = F.pad(x, (0, right, 0, bottom), value=self.pad_value)
        return Batch(x, height, width)


class ExportModule(nn.Module):
    """What is recorded: a model, from images `(B, H, W, bands)` in uint8 to named outputs."""

    output_names: tuple[str, ...]
    takes_size = False  # beside images, that of the outputs

    def __init__(self, model: Any, image_input: ImageInput) -> None:
        super().__init__()
        self.model, self.image_input = model, image_input
