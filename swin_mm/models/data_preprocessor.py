"""mmdet's data preprocessor without its limit to one or three bands; mmseg's own has none."""

from collections.abc import Sequence

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor

from swin_mm.registry import MODELS


@MODELS.register_module()
class DetDataPreprocessor(MmdetDataPreprocessor):
    """Normalises, pads and stacks images of any number of bands for a detector.

    Takes the arguments of mmdet's `DetDataPreprocessor`; `mean` and `std` have a value for each
    band. Images of three bands come out as mmdet's does them.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(mean=None, std=None, **kwargs)
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
