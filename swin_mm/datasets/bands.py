"""Reads images of any number of bands, of 8 or 16 bits or floats, and shows three of the bands."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffFile

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
# Of a band's values, what a picture shows as black and as white: few pixels are brighter, by much.
DARKEST, BRIGHTEST = 1.0, 99.0  # percent


class BandError(ValueError):
    """An image whose bands cannot be read, or not as asked; the message says why."""


class MissingReaderError(BandError):
    """What is needed to read an image is not installed; the message has the command."""


def is_tiff(path: str | Path) -> bool:
    """Returns by its first bytes whether a file is a TIFF."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF_STARTS


def decode_bands(content: bytes, name: str | Path = "the image") -> np.ndarray:
    """Decodes an image with all its bands, as they are.

    Args:
        content: A file's bytes: TIFF (bands interleaved, in planes or as pages) with tifffile, any
            other format with OpenCV.
        name: What to call it in an error.

    Returns:
        `(H, W, bands)` in the file's type of number. Bands are in the file's order; of colour
        pictures red, green, blue (and opacity).

    Raises:
        BandError: It is not an image, or one that has more axes than height, width and bands.
    """
    if content[:4] in TIFF_STARTS:
        return _decode_tiff(content, name)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BandError(f"{name} is not an image, or it is damaged: write it again")
    if image.ndim == 2:
        return image[..., None]
    order = [2, 1, 0, *range(3, image.shape[2])]  # OpenCV has blue first
    return image[..., order]


def read_bands(path: str | Path) -> np.ndarray:
    """Reads an image file as `decode_bands` does."""
    return decode_bands(Path(path).read_bytes(), path)


def read_shape(path: str | Path) -> tuple[int, int, int]:
    """Reads `(height, width, bands)`; of a TIFF only the header is looked at.

    Raises:
        BandError: As `decode_bands`.
    """
    if not is_tiff(path):
        return read_bands(path).shape
    with _open_tiff(path, path) as tiff:
        shape, axes = _shape_and_axes(tiff, path)
    bands = [size for size, axis in zip(shape, axes, strict=True) if axis not in "YX"]
    return shape[axes.index("Y")], shape[axes.index("X")], (bands or [1])[0]


def _open_tiff(source: str | Path | io.BytesIO, name: str | Path) -> "TiffFile":
    try:
        import tifffile
    except ImportError:
        raise MissingReaderError(
            f"{name} is a TIFF, which needs tifffile: pip install 'swin-mm[tiff]'"
        ) from None
    try:
        return tifffile.TiffFile(source)
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError) as error:
        raise BandError(f"{name} is not a TIFF that can be read ({error})") from None


def _shape_and_axes(tiff: "TiffFile", name: str | Path) -> tuple[tuple[int, ...], str]:
    try:
        shape, axes = tiff.series[0].shape, tiff.series[0].axes
    except Exception as error:  # on a damaged header tifffile raises all kinds
        raise BandError(f"{name} is a TIFF whose header is damaged: {error}") from None
    if sorted(axes)[-2:] != ["X", "Y"] or len(axes) > 3:
        raise BandError(
            f"{name} has the axes {axes} of sizes {shape}; an image has height, width and bands"
        )
    return shape, axes


def _decode_tiff(content: bytes, name: str | Path) -> np.ndarray:
    with _open_tiff(io.BytesIO(content), name) as tiff:
        _, axes = _shape_and_axes(tiff, name)
        try:
            image = tiff.series[0].asarray()
        except ImportError as error:  # a compression that tifffile leaves to imagecodecs
            raise MissingReaderError(f"{name}: {error}: pip install 'swin-mm[tiff]'") from None
        except Exception as error:  # tifffile and the decoders raise all kinds on damaged data
            raise BandError(f"{name} is damaged, or cut short: {error}") from None
    image = np.moveaxis(image, (axes.index("Y"), axes.index("X")), (0, 1))
    return image[..., None] if image.ndim == 2 else image


def to_picture(image: np.ndarray, bands: Sequence[int] | None = None) -> np.ndarray:
    """Makes a picture of three bands of an image.

    Pictures of three 8-bit bands are shown as they are, and 8-bit bands in general; others are
    stretched each from its dark to its bright end, so colours show differences and not truth.

    Args:
        image: `(H, W, bands)`, numbers.
        bands: Which bands are red, green and blue, or a single one for grey. By default the first
            three, and of one or two the first.

    Returns:
        `(H, W, 3)`, uint8, RGB.

    Raises:
        BandError: The image has no such bands.
    """
    count = image.shape[2]
    chosen = list(bands) if bands is not None else [0, 1, 2] if count >= 3 else [0]
    if len(chosen) not in (1, 3) or not all(0 <= band < count for band in chosen):
        raise BandError(
            f"a picture shows one or three bands of 0 to {count - 1}, got bands={tuple(chosen)}"
        )
    shown = image[..., chosen]
    if shown.dtype != np.uint8:
        low, high = np.percentile(shown, (DARKEST, BRIGHTEST), axis=(0, 1))
        span = np.where(high > low, high - low, 1)
        shown = (255 * (shown - low) / span).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))
