"""Checks that image files exist and can be loaded."""

import itertools
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from swin_mm.datasets.check.summary import DatasetError, examples
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.reader import Reader, UnreadableError

END_BYTES = 4096  # cameras and editors may add a little after an image's end mark
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
BATCH = 16  # images in memory at once


def check_present(paths: Sequence[str], where: str, what: str = "image") -> None:
    """Checks that files exist, by listing each folder once: 100,000 files take about a second."""
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
            f"{examples(missing)}; put them there, or correct data_root and data_prefix"
        )


def read_images(
    paths: Sequence[str],
    title: str,
    reader: Reader,
    threads: int = 1,
    seconds: float = float("inf"),
    decoded: float = float("inf"),
) -> tuple[int, dict[str, UnreadableError]]:
    """Reads image files, with a progress bar. What the limits leave out is spread over the list.

    Args:
        threads: How many to read at once.
        seconds: Time limit.
        decoded: How many to decode whole; of the others only the ends are read, unless a file's
            ends are unusual: it may still be sound.

    Returns:
        How many files were looked at; and those that cannot be read, and why.
    """
    chosen = [paths[i] for i in spread(len(paths))] if seconds < float("inf") else list(paths)
    every = max(1, int(len(chosen) // decoded))
    deadline = time.monotonic() + seconds
    read, unreadable = 0, {}

    def look(place: int) -> UnreadableError | None:
        if not (place % every and has_both_ends(chosen[place])):
            try:
                reader.read(chosen[place])
            except UnreadableError as error:
                return error
        return None

    places = itertools.takewhile(lambda _: time.monotonic() <= deadline, range(len(chosen)))
    with ThreadPoolExecutor(threads) as pool, show_progress(title, len(chosen)) as advance:
        while batch := list(itertools.islice(places, BATCH)):
            for place, error in zip(batch, pool.map(look, batch), strict=True):
                read += 1
                if error is not None:
                    unreadable[chosen[place]] = error
                advance(1)
    return read, unreadable


def has_both_ends(path: str) -> bool:
    """Returns whether a file begins and ends as a PNG or a JPEG does."""
    with open(path, "rb") as file:
        start = file.read(8)
        file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
        end = file.read()
    if start == PNG_START:
        return PNG_END in end
    return start.startswith(JPEG_START) and JPEG_END in end


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
