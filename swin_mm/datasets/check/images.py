"""Checks that image files are there, whole and of the size that their annotations say."""

import os
import struct
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

from swin_mm.datasets.bands import MissingReaderError, is_tiff, read_bands, read_shape
from swin_mm.datasets.check.summary import DatasetError, examples

DECODED = 64  # images of a data set that are decoded whole; of the others only the ends are read
END_BYTES = 4096  # cameras and editors may add a little after an image's end mark
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def check_present(
    paths: Sequence[str],
    where: str,
    what: str = "image",
    remedy: str = "correct data_root and data_prefix",
) -> None:
    """Checks that files exist, by listing each folder once: 100,000 files take about a second.

    Args:
        paths: Files.
        where: Whose they are, for the message.
        what: What they are, for the message.
        remedy: What to do where they are elsewhere, for the message.

    Raises:
        DatasetError: Some are missing.
    """
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        by_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, files in by_folder.items():
        try:
            there = set(os.listdir(folder or "."))
        except (FileNotFoundError, NotADirectoryError):
            there = set()
        missing += [path for path in files if os.path.basename(path) not in there]
    if missing:
        raise DatasetError(
            f"{where}: {len(missing)} of {len(paths)} {what} files are missing: "
            f"{examples(missing)}; put them there, or {remedy}"
        )


def check_whole(
    paths: Sequence[str], where: str, seconds: float, what: str = "image"
) -> str | None:
    """Checks that image files are not cut short: the ends of all of them, and some by decoding.

    Args:
        paths: Existing files.
        where: Whose they are, for the message.
        seconds: Time limit; what does not fit in it is left out, evenly over the list.
        what: What they are, for the message.

    Returns:
        A warning if time ran out, else None.

    Raises:
        DatasetError: A file is empty, cut short or not an image.
    """
    deadline = time.monotonic() + seconds
    decode_every = max(1, len(paths) // DECODED)
    damaged, looked_at = [], 0
    for index in spread(len(paths)):
        if time.monotonic() > deadline:
            break
        path = paths[index]
        # A file with an unusual end may still be sound: decoding decides.
        decode = looked_at % decode_every == 0 or not has_both_ends(path)
        if decode and not can_decode(path):
            damaged.append(path)
        looked_at += 1
    if damaged:
        raise DatasetError(
            f"{where}: {len(damaged)} of {looked_at} {what} files are empty, cut short or not "
            f"images: {examples(sorted(damaged))}; fetch them again, or take them out of the data"
        )
    if looked_at < len(paths):
        return f"{where}: looked at {looked_at} of {len(paths)} {what} files in {seconds:.0f} s"
    return None


def has_both_ends(path: str) -> bool:
    """Tells whether a file begins and ends as a PNG or a JPEG does."""
    with open(path, "rb") as file:
        start = file.read(8)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END_BYTES))
        end = file.read()
    if start == PNG_START:
        return PNG_END in end
    return start.startswith(JPEG_START) and JPEG_END in end


def can_decode(path: str) -> bool:
    """Tells whether the whole picture can be decoded; OpenCV would fill up a truncated JPEG."""
    try:
        if is_tiff(path):  # Pillow does not know many kinds, such as 16 bits in several bands
            read_bands(path)
            return True
        with Image.open(path) as image:
            image.load()
    except MissingReaderError:  # the file may be sound
        raise
    # A damaged PNG raises SyntaxError, or struct.error where a length field is cut; a damaged TIFF
    # BandError, which is a ValueError.
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error):
        return False
    return True


def image_size(path: str) -> tuple[int, int]:
    """Reads `(height, width)` from a file's header."""
    if is_tiff(path):
        return read_shape(path)[:2]
    with Image.open(path) as image:
        return image.height, image.width


def spread(count: int) -> np.ndarray:
    """Orders indices so that every beginning of the order is spread over the whole range.

    The bits of a counter, reversed: 0, 1/2, 1/4, 3/4, 1/8, ... of the range.
    """
    bits = max(1, (count - 1).bit_length())
    order = np.arange(1 << bits)
    reversed_order = np.zeros_like(order)
    for _ in range(bits):
        reversed_order = reversed_order << 1 | order & 1
        order = order >> 1
    return reversed_order[reversed_order < count]
