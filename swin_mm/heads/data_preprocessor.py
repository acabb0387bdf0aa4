"""mmdet's and mmseg's data preprocessors for whole batches, and for any number of bands."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import BaseDataElement
from mmseg.models.data_preprocessor import SegDataPreProcessor as MmsegDataPreProcessor
from torch import Tensor

from swin_mm.registry import MODELS

LABEL_MAPS = ("gt_sem_seg", "gt_edge_map", "gt_depth_map")  # what mmseg pads with an image


class BatchPreprocessor(ImgDataPreprocessor):
    """Puts images side by side as they come, and converts and normalises the whole batch.

    mmengine does it image by image, and for each waits for the order of the bands to reach the GPU.
    The numbers are the same.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch, as float32 in the memory format of the first image.

        Images are best uint8 in pinned memory.
        """
        data = self.cast_data(data)
        images = data["inputs"]
        if isinstance(images, Tensor) or not _are_alike(images):
            return super().forward(data, training)
        sides = [self._padded(max(side)) for side in zip(*map(_size_of, images), strict=True)]
        statistics = (self.mean, self.std) if self._enable_normalize else None
        batch = _stack(images, sides, self._channel_conversion, statistics, self.pad_value)
        return {"data_samples": None, **data, "inputs": batch}

    def _padded(self, side: int) -> int:
        return math.ceil(side / self.pad_size_divisor) * self.pad_size_divisor


@MODELS.register_module()
class DetDataPreprocessor(MmdetDataPreprocessor, BatchPreprocessor):
    """Normalises, pads and stacks images of any number of bands for a detector.

    Takes the arguments of mmdet's `DetDataPreprocessor`; `mean` and `std` have a value for each
    band. Images of three bands come out as mmdet's does them. Unless told not to, it does not wait
    for images to be copied (`non_blocking`), which are if the data loader has `pin_memory=True`.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        non_blocking: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(mean=None, std=None, non_blocking=non_blocking, **kwargs)
        if self._channel_conversion and mean is not None and len(mean) != 3:
            raise ValueError(
                f"bgr_to_rgb and rgb_to_bgr are for three bands, not {len(mean)}: set them to False"
            )
        _set_statistics(self, mean, std)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch.

        Raises:
            ValueError: An image has another number of bands than `mean`, or `inputs` is missing.
        """
        _prepare(self, data)
        if self._enable_normalize:
            _check_bands(data["inputs"], len(self.mean))
        return super().forward(data, training)


@MODELS.register_module()
class SegDataPreProcessor(MmsegDataPreProcessor):
    """Converts, normalises, pads and stacks the images of a batch at once for a segmentor.

    Takes the arguments of mmseg's `SegDataPreProcessor` and returns the same, but raises where that
    would repeat an image of one band to fit `mean`. Label maps may be uint8, as
    `swin_mm.PackSegInputs` leaves them, and become int64 here. Unless told not to, it does not wait
    for images to be copied (`non_blocking`), which are if the data loader has `pin_memory=True`.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
        size_divisor: int | None = None,
        non_blocking: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(mean=None, std=None, size=size, size_divisor=size_divisor, **kwargs)
        self._non_blocking = non_blocking
        _set_statistics(self, mean, std)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch, as float32 in the memory format of the first image.

        In training, images and label maps are padded to `size`, or to the largest of them and to
        multiples of `size_divisor`; else images are of one size, and padded as `test_cfg` says.

        Raises:
            ValueError: An image has another number of bands than `mean`, sizes do not fit, or
                `inputs` is missing.
        """
        _prepare(self, data)
        if self._enable_normalize and len(self.mean) > 1:
            _check_bands(data["inputs"], len(self.mean))
        data = self.cast_data(data)
        images, samples = list(data["inputs"]), data.get("data_samples")
        for sample in samples or ():
            widen_labels(sample)
        if not _are_alike(images):
            return super().forward(data, training)
        padding: dict | None = dict(size=self.size, size_divisor=self.size_divisor)
        if not training:
            if len(sizes := {tuple(_size_of(image)) for image in images}) > 1:
                raise ValueError(
                    "images of a batch must be of one size outside training, got "
                    f"{sorted(sizes)}: set batch_size=1, or resize without keep_ratio"
                )
            padding = self.test_cfg
        sides = _find_sides(images, padding) if padding else _size_of(images[0])
        flip = self.channel_conversion and len(images[0]) == 3
        statistics = (self.mean, self.std) if self._enable_normalize else None
        batch = _stack(images, sides, flip, statistics, self.pad_val)
        if training and samples is None:
            raise ValueError("in training, data_samples are needed, got None")
        if samples is not None and padding:
            for sample, image in zip(samples, images, strict=True):
                if training:
                    _pad_labels(sample, _size_of(image), sides, self.seg_pad_val)
                else:
                    room = _find_room(_size_of(image), sides)
                    sample.set_metainfo(dict(img_padding_size=room, pad_shape=torch.Size(sides)))
        if training and self.batch_augments is not None:
            batch, samples = self.batch_augments(batch, samples)
        return dict(inputs=batch, data_samples=samples)


def _set_statistics(
    preprocessor: Any, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Sets `mean` and `std`, `(bands, 1, 1)`.

    They are no buffers, which have no values after `to_empty` and construction on the meta device,
    and no checkpoint that would bring them back.
    """
    if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
        raise ValueError(f"mean and std need a value for each band, got {mean=}, {std=}")
    if std and min(std) <= 0:
        raise ValueError(f"std must be positive, got {std=}: leave constant bands out")
    preprocessor._enable_normalize = mean is not None
    if mean is not None:
        preprocessor.mean, preprocessor.std = (
            torch.tensor(values, dtype=torch.float32, device="cpu").view(-1, 1, 1)
            for values in (mean, std)
        )


def _prepare(preprocessor: Any, data: dict) -> None:
    """Brings the statistics to the device of the model, and checks a batch."""
    if preprocessor._enable_normalize:
        preprocessor.mean = preprocessor.mean.to(preprocessor.device)
        preprocessor.std = preprocessor.std.to(preprocessor.device)
    if "inputs" not in data:
        raise ValueError(
            f"a batch must have inputs, got {', '.join(sorted(data)) or 'nothing'}: a packing "
            "transform such as PackDetInputs or PackSegInputs must come last in the pipeline"
        )


def widen_labels(sample: BaseDataElement) -> None:
    """Makes a label map of uint8 one of int64, in place, which losses want."""
    labels = sample.get("gt_sem_seg")
    if labels is not None and labels.data.dtype == torch.uint8:
        labels.data = labels.data.long()


def _check_bands(images: Sequence[Tensor], bands: int) -> None:
    for image in images:
        if image.shape[0] != bands:  # one band would be repeated without a word
            raise ValueError(
                f"mean and std are for {bands} bands, an image has {image.shape[0]}: correct "
                "data_preprocessor, or the bands loaded"
            )


def _size_of(image: Tensor) -> torch.Size:
    return image.shape[-2:]


def _are_alike(images: Sequence[Tensor]) -> bool:
    kinds = {(image.dtype, image.ndim, image.shape[0]) for image in images}
    return len(kinds) == 1 and images[0].ndim == 3


def _find_sides(images: Sequence[Tensor], padding: Mapping) -> tuple[int, int]:
    """Height and width after mmseg's padding, of one of `size` and `size_divisor`."""
    size, divisor = padding.get("size"), padding.get("size_divisor")
    if (size is None) == (divisor is None):
        raise ValueError(f"one of size and size_divisor must be set, got {size=}, {divisor=}")
    if size is None:
        step = max(divisor or 1, 1)
        sides = [max(side) for side in zip(*map(_size_of, images), strict=True)]
        return tuple(-(-side // step) * step for side in sides)
    found = {tuple(max(pair) for pair in zip(size, _size_of(x), strict=True)) for x in images}
    if len(found) > 1:
        sizes = sorted({tuple(_size_of(image)) for image in images})
        raise ValueError(f"images of a batch must fit into {size=}, got {sizes}: crop them")
    return found.pop()


def _find_room(size: Sequence[int], sides: Sequence[int]) -> tuple[int, int, int, int]:
    """Pixels that are padded, as `torch.nn.functional.pad` takes them."""
    return 0, sides[1] - size[1], 0, sides[0] - size[0]


def _pad_labels(
    sample: BaseDataElement, size: torch.Size, sides: Sequence[int], value: float
) -> None:
    """Pads the label maps of an image and notes it, as mmseg's `stack_batch`, in place."""
    room = _find_room(size, sides)
    pad_shape = None
    for name in LABEL_MAPS:
        if name in sample:
            labels = sample.get(name)
            data = labels.data
            del labels.data  # PixelData refuses a map of another size than it has
            labels.data = F.pad(data, room, value=value) if any(room) else data
            pad_shape = labels.shape
    sample.set_metainfo(dict(img_shape=size, pad_shape=pad_shape, padding_size=room))


def _stack(
    images: Sequence[Tensor],
    sides: Sequence[int],
    flip: bool,
    statistics: tuple[Tensor, Tensor] | None,
    pad_value: float,
) -> Tensor:
    """Makes a batch of images `(bands, H, W)` of one dtype and number of bands.

    It is `(B, bands, *sides)`, float32, in memory of its own. `flip` turns the order of the bands
    round. `pad_value` stands right of images and below them, after normalisation by `statistics`.
    """
    batch = _place(images, torch.Size(sides))
    if flip:
        batch = batch.flip(1)
    batch = batch.float()
    if statistics is not None:
        _normalise(batch, *statistics)
    for place, image in zip(batch, images, strict=True):
        if _size_of(image) != torch.Size(sides):
            place[:, image.shape[1] :] = pad_value
            place[:, :, image.shape[2] :] = pad_value
    return batch


def _place(images: Sequence[Tensor], sides: torch.Size) -> Tensor:
    """Puts images side by side; what is right of them and below is not written."""
    # Bands last is how `swin_mm.PackDetInputs` leaves them.
    bands_last = images[0].stride(0) == 1
    if all(_size_of(image) == sides for image in images):
        if bands_last:  # stacked as they lie in memory
            return torch.stack([x.permute(1, 2, 0) for x in images]).permute(0, 3, 1, 2)
        return torch.stack(list(images))
    batch = torch.empty(
        (len(images), images[0].shape[0], *sides),
        dtype=images[0].dtype,
        device=images[0].device,
        memory_format=torch.channels_last if bands_last else torch.contiguous_format,
    )
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch


def _normalise(batch: Tensor, mean: Tensor, std: Tensor) -> None:
    """Subtracts means and divides by deviations, in place."""
    if batch.is_contiguous(memory_format=torch.channels_last):
        # Whole rows at a time: a CPU is slow at loops over three bands.
        _, bands, _, width = batch.shape
        mean, std = (x.flatten().expand(bands).repeat(width) for x in (mean, std))
        batch = batch.permute(0, 2, 3, 1).flatten(2)  # (B, H, W*bands)
    batch.sub_(mean).div_(std)
