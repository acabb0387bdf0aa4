"""Segmentors, and features alone, with the outputs that a file has."""

from typing import Any

import torch
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.models.utils import resize
from torch import Tensor

from swin_mm.export.inputs import ExportModule, ImageInput
from swin_mm.export.operators import resize_to


class Segmentor(ExportModule):
    """A segmentor, mmseg's `EncoderDecoder`, that looks at whole images."""

    output_names = ("label_map",)
    takes_size = True

    def forward(self, image: Tensor, size: Tensor | None = None) -> Tensor:
        """Labels the pixels of images `(B, H, W, bands)`, uint8 or int32.

        Label maps have the height and width `size`, `(2,)` int64, or those of the images.
        """
        batch = self.image_input(image)
        head, features = self.model.decode_head, self.model.extract_feat(batch.images)
        if isinstance(head, Mask2FormerHead):  # whose `forward` gives the masks of queries
            shape = tuple(batch.images.shape[2:])
            logits = head.predict(features, [dict(img_shape=shape, pad_shape=shape)], None)
        else:
            logits = head(features)
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


class MaskQueries(ExportModule):
    """Mask2Former and MaskFormer: masks, of which the runtime makes objects or segments."""

    output_names = ("scores", "labels", "mask_logits")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Finds objects or segments in images `(B, H, W, bands)`.

        Returns:
            `(B, K)`, `(B, K)` int64 and `(B, K, h, w)`, a quarter of the padded image. For panoptic
            maps the best class of each query, which is the number of classes for none.
        """
        batch = self.image_input(image)
        features = self.model.extract_feat(batch.images)
        cls, masks = self.model.panoptic_head(features, batch.samples())
        scores = cls[-1].softmax(-1)  # (B, Q, C + 1)
        if self.model.test_cfg.get("panoptic_on", True):
            return *scores.max(-1), masks[-1]
        num_classes = self.model.num_classes
        count = self.model.test_cfg.get("max_per_image", 100)
        scores, index = scores[..., :-1].flatten(1).topk(count, dim=1)
        labels = index % num_classes
        scores = torch.where(labels < self.model.num_things_classes, scores, 0.0)
        query = (index // num_classes)[..., None, None].expand(-1, -1, *masks[-1].shape[2:])
        return scores, labels, masks[-1].gather(1, query)


class Features(ExportModule):
    """The `count` maps of a backbone, or of the neck after it; outputs `level_0` and so on."""

    def __init__(self, model: Any, image_input: ImageInput, with_neck: bool, count: int) -> None:
        super().__init__(model, image_input)
        self.with_neck = with_neck
        self.output_names = tuple(f"level_{i}" for i in range(count))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Maps `(B, C, H_i, W_i)` of images `(B, H, W, bands)`."""
        images = self.image_input(image).images
        return tuple(
            self.model.extract_feat(images) if self.with_neck else self.model.backbone(images)
        )
