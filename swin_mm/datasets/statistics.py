"""Mean and standard deviation of the pixels of many images, band by band."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics over all pixels of some images.

    Attributes:
        mean: Of each band, in the images' own units and order of bands.
        std: Standard deviation of each band, likewise.
        images: How many images were counted.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int


def pixel_statistics(images: Iterable[np.ndarray]) -> PixelStatistics:
    """Computes mean and standard deviation over the pixels of all images, in one pass.

    Args:
        images: `(H, W)` or `(H, W, bands)` each, of any number type; sizes may differ. They are
            held one at a time, so a generator that reads files will do.

    Raises:
        ValueError: There is no image, they differ in their number of bands, or values are not
            finite.

    Source:
        Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
        Variances, 1979: squares of pixels are never summed, so large values with little spread (16
        bits) lose no digits.
    """
    pixels = images_seen = 0
    mean = squares = np.zeros(0)
    for image in images:
        bands = image.shape[2] if image.ndim == 3 else 1
        values = image.reshape(-1, bands).astype(np.float64)
        if images_seen and bands != len(mean):
            raise ValueError(
                f"images must have equally many bands: one has {bands}, others {len(mean)}"
            )
        if not images_seen:
            mean, squares = np.zeros(bands), np.zeros(bands)
        own_mean = values.mean(axis=0)
        if not np.isfinite(own_mean).all():
            raise ValueError("images must hold finite numbers; one has others (NaN or infinite)")
        total = pixels + len(values)
        difference = own_mean - mean
        squares += ((values - own_mean) ** 2).sum(axis=0)
        squares += difference**2 * pixels * len(values) / total
        mean += difference * len(values) / total
        pixels = total
        images_seen += 1
    if not images_seen:
        raise ValueError("statistics need at least one image, got none")
    return PixelStatistics(
        tuple(mean.tolist()), tuple(np.sqrt(squares / pixels).tolist()), images_seen
    )
