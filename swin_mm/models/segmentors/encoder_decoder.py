"""mmseg's segmentor, several windows at a time when windows slide over an image."""

import torch
from mmseg.models.segmentors import EncoderDecoder as MmsegEncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from swin_mm.models.data_preprocessor import widen_labels
from swin_mm.registry import MODELS

WINDOWS_PER_BATCH = 4  # logits of 150 classes of four windows of 512x512 take 600 MiB


@MODELS.register_module()
class EncoderDecoder(MmsegEncoderDecoder):
    """Takes the arguments and the state dict of mmseg's `EncoderDecoder`, and computes the same.

    In `mode="slide"`, `test_cfg` may say with `windows_per_batch` how many windows of an image go
    through the model at once.
    """

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Losses of all heads; label maps may be uint8, whatever prepared the batch."""
        for sample in data_samples:
            widen_labels(sample)
        return super().loss(inputs, data_samples)

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Averages the logits of overlapping windows.

        Args:
            inputs: `(B, 3, H, W)`.
            batch_img_metas: Meta information of each image.

        Returns:
            Logits `(B, C, H, W)`.
        """
        per_batch = self.test_cfg.get("windows_per_batch", WINDOWS_PER_BATCH)
        if per_batch < 1:
            raise ValueError(f"windows_per_batch must be 1 or more, got {per_batch}")
        size = inputs.shape[2:]
        sides = [min(*pair) for pair in zip(self.test_cfg.crop_size, size, strict=True)]
        tops, lefts = (
            _starts(*axis) for axis in zip(size, sides, self.test_cfg.stride, strict=True)
        )
        places = [(top, left) for top in tops for left in lefts]
        metas = [{**meta, "img_shape": torch.Size(sides)} for meta in batch_img_metas]
        total = inputs.new_zeros(len(inputs), self.out_channels, *size)
        for i in range(0, len(places), per_batch):
            some = places[i : i + per_batch]
            windows = [
                inputs[:, :, top : top + sides[0], left : left + sides[1]] for top, left in some
            ]
            logits = self.encode_decode(torch.cat(windows), metas * len(some))
            for (top, left), part in zip(some, logits.split(len(inputs)), strict=True):
                total[:, :, top : top + sides[0], left : left + sides[1]] += part
        rows, columns = (
            _counts(*axis, inputs) for axis in zip(size, sides, (tops, lefts), strict=True)
        )
        return total / (rows[:, None] * columns)


def _starts(size: int, side: int, stride: int) -> list[int]:
    """First pixels of windows along an axis; the last one ends where the image does."""
    steps = range(-(-max(size - side, 0) // stride) + 1)
    return [min(step * stride, size - side) for step in steps]


def _counts(size: int, side: int, starts: list[int], like: Tensor) -> Tensor:
    """How many windows cover each pixel of an axis."""
    counts = like.new_zeros(size)
    for start in starts:
        counts[start : start + side] += 1
    return counts
