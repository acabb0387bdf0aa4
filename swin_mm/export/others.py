"""Segmentors, and features alone, with the outputs that a file has."""

from typing import Any

import torch
from mmseg.models.utils import resize
from torch import Tensor, nn

from swin_mm.export.inputs import ImageInput
from swin_mm.export.operators import resize_to


class Segmentor(nn.Module):
    """A segmentor that looks at whole images; its output is `label_map`.

    Args:
        model: mmseg's `EncoderDecoder`.
        image_input: Prepares its images.
    """

    output_names = ("label_map",)
    takes_size = True

    def __init__(self, model: Any, image_input: ImageInput) -> None:
        super().__init__()
        self.model, self.image_input = model, image_input

    def forward(self, image: Tensor, size: Tensor | None = None) -> Tensor:
        """Labels the pixels of images `(B, H, W, bands)`.

        Args:
            image: The images.
            size: Height and width of the label maps, `(2,)` int64; `None` for those of the images.

        Returns:
            `(B, H', W')`, uint8 or int32.
        """
        batch = self.image_input(image)
        logits = self.model.decode_head(self.model.extract_feat(batch.images))
        align_corners = self.model.align_corners
        logits = resize(
            logits, batch.images.shape[2:], mode="bilinear", align_corners=align_corners
        )
        logits = logits[:, :, : batch.height, : batch.width]
        if size is not None:
            logits = resize_to(logits, size, align_corners)
        if logits.shape[1] == 1:
            labels = logits[:, 0].sigmoid() > self.model.decode_head.threshold
        else:
            labels = logits.argmax(1)
        return labels.to(torch.uint8 if self.model.num_classes <= 256 else torch.int32)


class Features(nn.Module):
    """The maps of a backbone, or of the neck after it; outputs `level_0` and so on.

    Args:
        model: A detector or segmentor.
        image_input: Prepares its images.
        with_neck: Whether the neck is included.
        count: How many maps there are.
    """

    def __init__(self, model: Any, image_input: ImageInput, with_neck: bool, count: int) -> None:
        super().__init__()
        self.model, self.image_input = model, image_input
        self.with_neck = with_neck
        self.output_names = tuple(f"level_{i}" for i in range(count))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps `(B, C, H_i, W_i)` of images `(B, H, W, bands)`."""
        images = self.image_input(image).images
        return tuple(
            self.model.extract_feat(images) if self.with_neck else self.model.backbone(images)
        )
