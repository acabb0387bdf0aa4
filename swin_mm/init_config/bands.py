"""Finds out what bands the images of a data set have, and what values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swin_mm.datasets.bands import is_tiff, read_bands
from swin_mm.datasets.check.images import spread
from swin_mm.datasets.statistics import pixel_statistics
from swin_mm.init_config.write import InitConfigError

LOOKED_AT = 8  # images whose bands are counted
MEASURED = 200  # images that mean and deviation are computed over
PIXEL_STEP = 3  # every so-manieth pixel of each line and column


@dataclass(frozen=True)
class Bands:
    """Bands that are not those of a colour picture.

    Attributes:
        chosen: Which bands of the files are used.
        mean: Of each, over the training images, in the files' units.
        std: Standard deviation of each.
        images: How many images were measured.
    """

    chosen: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int


def survey_bands(files: Sequence[str], chosen: Sequence[int] | None = None) -> Bands | None:
    """Looks at images and measures them, unless they are pictures that any loader reads.

    Pictures are of one or three 8-bit bands, or four in another format than TIFF (opacity).

    Args:
        files: The training images.
        chosen: Bands that the user wants; None takes all.

    Returns:
        The bands, or None for pictures.

    Raises:
        InitConfigError: Images differ in their bands, or a band is constant.
        BandError: A file cannot be read.
    """
    order = spread(len(files))
    looked_at = [files[index] for index in order[:LOOKED_AT]]
    images = {path: read_bands(path) for path in looked_at}
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
    found = pixel_statistics(read_bands(path)[step, step][..., list(bands)] for path in measured)
    constant = [band for band, std in zip(bands, found.std, strict=True) if std == 0]
    if constant:
        kept = " ".join(str(band) for band in bands if band not in constant)
        raise InitConfigError(
            f"bands {constant} hold one value everywhere: leave them out with --bands {kept}"
        )
    return Bands(bands, _rounded(found.mean), _rounded(found.std), found.images)


def _is_picture(path: str, image: np.ndarray) -> bool:
    count = image.shape[2]
    return image.dtype == np.uint8 and (count in (1, 3) or (count == 4 and not is_tiff(path)))


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Keeps five digits, which is more than a sample of images tells."""
    return tuple(float(f"{value:.5g}") for value in values)
