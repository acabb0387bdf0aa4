"""mmseg's segmentor, several windows at a time when windows slide over an image."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder as MmsegEncoderDecoder
from mmseg.structures import SegDataSample
from torch import Tensor

from swin_mm.heads.data_preprocessor import widen_labels
from swin_mm.registry import MODELS

WINDOWS_PER_BATCH = 4  # logits of 150 classes of four windows of 512x512 take 600 MiB


@MODELS.register_module()
class EncoderDecoder(MmsegEncoderDecoder):
    """Takes the arguments and the state dict of mmseg's `EncoderDecoder`, and computes the same.

    In `mode="slide"`, `test_cfg` may say with `windows_per_batch` how many windows of an image go
    through the model at once. Heads that predict masks (MaskFormer, Mask2Former) can slide too.

    With `out_channels=1`, `seg_logits` of a prediction are logits, so that `SegTTAModel` can merge
    them; mmseg puts probabilities there.

    Raises:
        ValueError: `test_cfg` has a mode, window or stride that cannot cover an image.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_windows(self.test_cfg or {})

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """Losses of all heads; label maps may be uint8, whatever prepared the batch."""
        for sample in data_samples:
            widen_labels(sample)
        return super().loss(inputs, data_samples)

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Averages the logits `(B, C, H, W)` of overlapping windows.

        Raises:
            ValueError: As the class; `test_cfg` may have changed since.
        """
        check_windows(self.test_cfg)
        per_batch = self.test_cfg.get("windows_per_batch", WINDOWS_PER_BATCH)
        size = inputs.shape[2:]
        sides = [min(*pair) for pair in zip(self.test_cfg.crop_size, size, strict=True)]
        tops, lefts = (
            _starts(*axis) for axis in zip(size, sides, self.test_cfg.stride, strict=True)
        )
        places = [(top, left) for top in tops for left in lefts]
        # A window is an image to the heads: each reads another one of these.
        window = dict.fromkeys(("img_shape", "pad_shape", "batch_input_shape"), torch.Size(sides))
        metas = [{**meta, **window} for meta in batch_img_metas]
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

    def postprocess_result(
        self, seg_logits: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Takes off padding and flips, resizes to the images, and decides on labels."""
        if seg_logits.shape[1] > 1:
            return super().postprocess_result(seg_logits, data_samples)
        # As two classes, the first at the threshold everywhere: no probability is lost on the way.
        threshold = torch.tensor(self.decode_head.threshold).logit(eps=1e-6).item()
        both = torch.cat([torch.full_like(seg_logits, threshold), seg_logits], dim=1)
        samples = super().postprocess_result(both, data_samples)
        for sample in samples:
            sample.seg_logits = PixelData(data=sample.seg_logits.data[1:])
        return samples


def check_windows(test_cfg: Mapping) -> None:
    """Checks that the sliding windows of a `test_cfg` cover an image.

    Raises:
        ValueError: They do not, or are not described.
    """
    mode = test_cfg.get("mode", "whole")
    if mode not in ("whole", "slide"):
        raise ValueError(f"test_cfg.mode must be 'whole' or 'slide', got {mode!r}")
    if mode == "whole":
        return
    sides = {}
    for name in ("crop_size", "stride"):
        sides[name] = value = test_cfg.get(name) or ()
        is_pair = isinstance(value, (list, tuple)) and len(value) == 2
        if not is_pair or not all(isinstance(side, int) and side > 0 for side in value):
            raise ValueError(
                f"test_cfg.{name} must be (height, width) in pixels for mode='slide', "
                f"got {test_cfg.get(name)}"
            )
    crop, stride = sides["crop_size"], sides["stride"]
    if any(step > side for step, side in zip(stride, crop, strict=True)):
        raise ValueError(
            f"test_cfg.stride={tuple(stride)} is larger than crop_size={tuple(crop)}, so pixels "
            "between windows would have no prediction: make the stride at most the crop, best two "
            f"thirds, {tuple(max(1, 2 * side // 3) for side in crop)}"
        )
    per_batch = test_cfg.get("windows_per_batch", WINDOWS_PER_BATCH)
    if per_batch < 1:
        raise ValueError(f"test_cfg.windows_per_batch must be 1 or more, got {per_batch}")


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
