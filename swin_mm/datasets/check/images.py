"""Checks that image files are there, whole and of the size that their annotations say."""

import os
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from swin_mm.datasets.check.summary import DatasetError, examples
from swin_mm.datasets.reader import Reader, UnreadableError

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
    paths: Sequence[str], where: str, seconds: float, what: str, reader: Reader
) -> str | None:
    """Checks that image files can be loaded: the ends of all of them, and some by decoding.

    Args:
        paths: Existing files.
        where: Whose they are, for the message.
        seconds: Time limit; what does not fit in it is left out, evenly over the list.
        what: What they are, for the message.
        reader: What training loads them with.

    Returns:
        A warning if time ran out, else None.

    Raises:
        DatasetError: A file is empty, cut short or nothing that the reader reads.
    """
    deadline = time.monotonic() + seconds
    decode_every = max(1, len(paths) // DECODED)
    unreadable: dict[str, UnreadableError] = {}
    looked_at = 0
    for index in spread(len(paths)):
        if time.monotonic() > deadline:
            break
        path = paths[index]
        # A file with an unusual end may still be sound: decoding decides.
        if looked_at % decode_every == 0 or not has_both_ends(path):
            try:
                reader.read(path)
            except UnreadableError as error:
                unreadable[path] = error
        looked_at += 1
    if unreadable:
        raise DatasetError(describe_unreadable(unreadable, looked_at, where, what))
    if looked_at < len(paths):
        return f"{where}: looked at {looked_at} of {len(paths)} {what} files in {seconds:.0f} s"
    return None


def describe_unreadable(
    unreadable: dict[str, UnreadableError], looked_at: int, where: str, what: str
) -> str:
    """Says which of some files cannot be read, and why not the first.

    Args:
        unreadable: Files, and why they cannot be read.
        looked_at: Number of all files.
        where: Whose they are.
        what: What they are.
    """
    first = min(unreadable)
    return (
        f"{where}: {len(unreadable)} of {looked_at} {what} files are empty, cut short or not "
        f"images: {examples(sorted(unreadable))}; fetch them again, or take them out "
        f"of the data ({unreadable[first]})"
    )


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
