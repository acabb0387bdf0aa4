"""mmdet's data preprocessor for whole batches, and for any number of bands."""

import math
from collections.abc import Sequence

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor
from mmengine.model import ImgDataPreprocessor
from torch import Tensor

from swin_mm.registry import MODELS


class BatchPreprocessor(ImgDataPreprocessor):
    """Puts images side by side as they come, and converts and normalises the whole batch.

    mmengine does it image by image, and for each waits for the order of the bands to reach the GPU.
    The numbers are the same.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch.

        Args:
            data: `inputs`, of each image `(bands, H, W)`, best as uint8 in pinned memory.
            training: Unused.

        Returns:
            `inputs`, `(B, bands, H, W)`, float32, in the memory format of the first image; and
            `data_samples`.
        """
        data = self.cast_data(data)
        images = data["inputs"]
        kinds = {(image.dtype, image.ndim, image.shape[0]) for image in images}
        if isinstance(images, Tensor) or len(kinds) != 1 or images[0].ndim != 3:
            return super().forward(data, training)
        return {"data_samples": None, **data, "inputs": self._stack(images)}

    def _stack(self, images: Sequence[Tensor]) -> Tensor:
        shapes = (image.shape[1:] for image in images)
        sides = torch.Size(self._padded(max(side)) for side in zip(*shapes, strict=True))
        # Bands last is how `swin_mm.PackDetInputs` leaves them.
        bands_last = images[0].stride(0) == 1
        batch = torch.empty(
            (len(images), images[0].shape[0], *sides),
            dtype=images[0].dtype,
            device=images[0].device,
            memory_format=torch.channels_last if bands_last else torch.contiguous_format,
        )
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        if self._channel_conversion:
            batch = batch.flip(1)
        batch = batch.float()
        if self._enable_normalize:
            batch = batch.sub_(self.mean).div_(self.std)
        for place, image in zip(batch, images, strict=True):
            place[:, image.shape[1] :] = self.pad_value
            place[:, :, image.shape[2] :] = self.pad_value
        return batch

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
        **kwargs,
    ) -> None:
        super().__init__(mean=None, std=None, **{"non_blocking": True, **kwargs})
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ValueError(f"mean and std need a value for each band, got {mean=}, {std=}")
        if self._channel_conversion and mean is not None and len(mean) != 3:
            raise ValueError(
                f"bgr_to_rgb and rgb_to_bgr are for three bands, not {len(mean)}: set them to False"
            )
        if mean is not None:
            if min(std) <= 0:
                raise ValueError(f"std must be positive, got {std=}: leave constant bands out")
            self._enable_normalize = True
            for name, values in (("mean", mean), ("std", std)):
                value = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)  # (bands, 1, 1)
                self.register_buffer(name, value, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepares a batch.

        Raises:
            ValueError: An image has another number of bands than `mean`.
        """
        if self._enable_normalize:
            for image in data["inputs"]:
                if image.shape[0] != len(self.mean):  # one band would be repeated without a word
                    raise ValueError(
                        f"mean and std are for {len(self.mean)} bands, an image has "
                        f"{image.shape[0]}: correct data_preprocessor, or the bands loaded"
                    )
        return super().forward(data, training)
