"""Finds out what bands the images of a data set have, and what values."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from swin_mm.datasets.bands import is_tiff, read_bands
from swin_mm.datasets.check.images import spread
from swin_mm.init_config.options import InitConfigError

LOOKED_AT = 8  # images whose bands are counted
MEASURED = 200  # images that mean and deviation are computed over
PIXEL_STEP = 3  # every so-manieth pixel of each line and column


class Bands(NamedTuple):
    """Bands that are used, their mean and deviation in the files' units, over so many images."""

    chosen: tuple[int, ...]
    mean: list[float]
    std: list[float]
    images: int


def survey_bands(files: Sequence[str], chosen: Sequence[int] | None = None) -> Bands | None:
    """Looks at training images and measures them, unless they are pictures that any loader reads.

    Pictures are of one or three 8-bit bands, or four in another format than TIFF (opacity).
    """
    order = spread(len(files))
    images = {files[index]: read_bands(files[index]) for index in order[:LOOKED_AT]}
    if chosen is None and all(_is_picture(path, image) for path, image in images.items()):
        return None
    counts = {path: image.shape[2] for path, image in images.items()}
    (first, count), *others = counts.items()
    for path, other in others:
        if other != count and chosen is None:
            raise InitConfigError(
                f"images have different bands: {first} {count}, {path} {other}; choose those "
                "that all have with --bands"
            )
    bands = tuple(range(count)) if chosen is None else tuple(chosen)
    if min(bands) < 0 or max(bands) >= min(counts.values()):
        raise InitConfigError(f"--bands {bands}: images have bands 0 to {min(counts.values()) - 1}")
    measured = [files[index] for index in order[:MEASURED]]
    step = slice(None, None, PIXEL_STEP)
    pixels = (read_bands(path)[step, step][..., list(bands)] for path in measured)
    mean, std = measure(values.reshape(-1, len(bands)) for values in pixels)
    if not np.isfinite(mean).all():
        raise InitConfigError("images hold values that are not finite: write numbers for no data")
    constant = [band for band, one in zip(bands, std, strict=True) if one == 0]
    if constant:
        kept = " ".join(str(band) for band in bands if band not in constant)
        raise InitConfigError(
            f"bands {constant} hold one value everywhere: leave them out with --bands {kept}"
        )
    # Five digits are more than a sample of images says.
    mean, std = ([float(f"{x:.5g}") for x in values] for values in (mean, std))
    return Bands(bands, mean, std, len(measured))


def measure(images: Iterable[np.ndarray]) -> tuple[Any, Any]:
    """Mean and standard deviation `(bands,)` of the pixels `(N, bands)` of all images."""
    parts = [(len(v), v.mean(0, dtype=float), v.var(0, dtype=float)) for v in images]
    counts, means, variances = map(np.array, zip(*parts, strict=True))
    mean = np.average(means, axis=0, weights=counts)
    # Of each image by itself, so that large values with little spread lose no digits.
    return mean, np.sqrt(np.average(variances + (means - mean) ** 2, axis=0, weights=counts))


def _is_picture(path: str, image: np.ndarray) -> bool:
    count = image.shape[2]
    return image.dtype == np.uint8 and (count in (1, 3) or (count == 4 and not is_tiff(path)))
