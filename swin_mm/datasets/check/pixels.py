"""Reads every image of a data set: which cannot be, and what values the others have."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from swin_mm.datasets.check.images import can_decode, spread
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.statistics import PixelStatistics, pixel_statistics

BATCH = 64  # images in memory at once
# Of larger images every second pixel each way is counted: the others say the same at four times the
# work.
WHOLE = 256 * 256


@dataclass
class Pixels:
    """What reading found.

    Attributes:
        read: How many files were read.
        unreadable: Those that could not be.
        statistics: Of the others' pixels; None where they were not asked for or there are none.
        why_none: Why there are no statistics though they were asked for; else empty.
    """

    read: int = 0
    unreadable: list[str] = field(default_factory=list)
    statistics: PixelStatistics | None = None
    why_none: str = ""


def read_all(
    paths: Sequence[str],
    title: str,
    threads: int = 1,
    limit: float = float("inf"),
    load: Callable[[str], np.ndarray] | None = None,
) -> Pixels:
    """Decodes image files, with a progress bar.

    Args:
        paths: Existing files.
        title: What they are, for the bar.
        threads: How many to read at once.
        limit: How many to read at most; fewer are spread evenly over the list.
        load: Reads a file to `(H, W, bands)` for the statistics; without it there are none.
    """
    chosen = [paths[i] for i in sorted(spread(len(paths))[: int(min(limit, len(paths)))])]
    found = Pixels(read=len(chosen))

    def read(path: str) -> tuple[bool, np.ndarray | None]:
        if not can_decode(path):
            return False, None
        try:
            return True, None if load is None else load(path)
        except ValueError as error:  # it lacks a band that the pipeline takes
            found.why_none = f"no mean: {error}"
            return True, None

    def images() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(threads) as pool, show_progress(title, len(chosen)) as advance:
            for start in range(0, len(chosen), BATCH):
                batch = chosen[start : start + BATCH]
                for path, (whole, image) in zip(batch, pool.map(read, batch), strict=True):
                    if not whole:
                        found.unreadable.append(path)
                    if image is not None:
                        yield image[::2, ::2] if image[..., 0].size > WHOLE else image
                    advance(1)

    reading = images()
    if load is not None:
        try:
            found.statistics = pixel_statistics(reading)
        except ValueError as error:
            if len(found.unreadable) < found.read and not found.why_none:
                found.why_none = f"no mean: {error}"
    for _ in reading:  # the rest, where there are no statistics
        pass
    return found


def load_colours(path: str) -> np.ndarray:
    """Reads an image as pipelines do by default: `(H, W, 3)`, red, green and blue."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
