"""Images with other bands than red, green and blue: loading, augmentation, pictures.

The usual geometric transforms (`Resize`, `RandomResize`, `RandomCrop`, `RandomFlip`, `Pad`) take
any number of bands. Above four, `Resize` does not with `interpolation="area"`, and `Pad` needs a
float, `pad_val=dict(img=0.0)`. Those that work on colours or make a canvas of three
(`PhotoMetricDistortion`, `RandomAffine`, `Mosaic`, `MixUp`) do not.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from swin_mm.datasets.bands import BandError, decode_bands, to_picture
from swin_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadMultiBandImage(BaseTransform):
    """Loads an image with any number of bands, in place of `LoadImageFromFile`.

    Reads TIFF (8 or 16 bits, floats) and whatever OpenCV reads. The bands keep the file's order, so
    the data preprocessor needs `bgr_to_rgb=False`; its mean and standard deviation are those of the
    bands chosen, in the units that come out here.

    Args:
        bands: Which bands to take, counted from 0, in this order; None takes all.
        value_range: Values that become 0 and 255; those beyond are cut. None leaves values as they
            are in the file. For 16-bit images with outliers, such as clouds in satellite pictures.
        picture_bands: Which of the bands taken are red, green and blue in pictures (or one, for
            grey); None shows the first three, and of one or two the first.
        backend_args: Where files are, as in `LoadImageFromFile`.

    Adds `img` (float32, `(H, W, bands)`), `img_shape` and `ori_shape` (height, width).
    """

    def __init__(
        self,
        bands: Sequence[int] | None = None,
        value_range: tuple[float, float] | None = None,
        picture_bands: Sequence[int] | None = None,
        backend_args: dict | None = None,
    ) -> None:
        if bands is not None and (len(bands) == 0 or min(bands) < 0):
            raise ValueError(f"bands must be indices from 0 on, got {bands=}")
        if value_range is not None and not value_range[0] < value_range[1]:
            raise ValueError(f"value_range must be (low, high), low < high, got {value_range=}")
        self.bands = None if bands is None else list(bands)
        self.value_range = value_range
        self.picture_bands = picture_bands
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Loads `results["img_path"]`.

        Raises:
            BandError: It cannot be read, lacks a band, or holds values that are not finite.
        """
        path = results["img_path"]
        content = get(path, backend_args=self.backend_args)
        results["img"] = image = self.convert(decode_bands(content, path), path)
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results

    def convert(self, image: np.ndarray, name: str | Path) -> np.ndarray:
        """Chooses and scales the bands of an image `(H, W, bands)`; the result is float32.

        Raises:
            BandError: The image lacks a band, or holds values that are not finite.
        """
        image = self._choose(image, name).astype(np.float32)
        if not np.isfinite(image).all():
            raise BandError(f"{name} holds values that are not finite: write numbers for no data")
        if self.value_range is not None:
            low, high = self.value_range
            image = ((image - low) * (255 / (high - low))).clip(0, 255)
        return image

    def picture(self, path: str | Path) -> np.ndarray:
        """Reads an image to be looked at: `(H, W, 3)`, uint8, RGB."""
        image = decode_bands(get(path, backend_args=self.backend_args), path)
        return to_picture(self._choose(image, path), self.picture_bands)

    def _choose(self, image: np.ndarray, name: str | Path) -> np.ndarray:
        if self.bands is None:
            return image
        if max(self.bands) >= image.shape[2]:
            raise BandError(f"{name} has {image.shape[2]} bands, but bands={self.bands} are wanted")
        return image[..., self.bands]


@TRANSFORMS.register_module()
class RandomBandGain(BaseTransform):
    """Brightens or darkens each band by itself, as light and sensors do.

    What `PhotoMetricDistortion` is for colour pictures.

    Args:
        strength: Largest change; 0.2 multiplies a band by 0.8 to 1.2.
        prob: How often, 0 to 1.
    """

    def __init__(self, strength: float = 0.2, prob: float = 0.5) -> None:
        if not 0 < strength < 1:
            raise ValueError(f"strength must be between 0 and 1, got {strength=}")
        self.strength = strength
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Changes `results["img"]`; it becomes float32."""
        # mmengine seeds NumPy's global generator in each worker, and no other.
        if np.random.rand() >= self.prob:  # noqa: NPY002
            return results
        image = results["img"].astype(np.float32)
        bands = image.shape[2] if image.ndim == 3 else 1
        change = np.random.uniform(-self.strength, self.strength, bands)  # noqa: NPY002
        results["img"] = image * (1 + change).astype(np.float32)
        return results
