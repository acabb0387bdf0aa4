"""Reads every image of a data set: which cannot be, and what values the others have."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.reader import Reader, UnreadableError
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
        unreadable: Those that could not be, and why.
        statistics: Of the others' pixels; None where they were not asked for or there are none.
        why_none: Why there are no statistics though they were asked for; else empty.
    """

    read: int = 0
    unreadable: dict[str, UnreadableError] = field(default_factory=dict)
    statistics: PixelStatistics | None = None
    why_none: str = ""


def read_all(
    paths: Sequence[str],
    title: str,
    reader: Reader,
    threads: int = 1,
    limit: float = float("inf"),
    measure: bool = False,
) -> Pixels:
    """Decodes image files, with a progress bar.

    Args:
        paths: Existing files.
        title: What they are, for the bar.
        reader: What training loads them with.
        threads: How many to read at once.
        limit: How many to read at most; fewer are spread evenly over the list.
        measure: Whether to compute statistics.
    """
    chosen = [paths[i] for i in sorted(spread(len(paths))[: int(min(limit, len(paths)))])]
    found = Pixels(read=len(chosen))

    def read(path: str) -> np.ndarray | UnreadableError:
        try:
            return reader.read(path)
        except UnreadableError as error:
            return error

    def images() -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(threads) as pool, show_progress(title, len(chosen)) as advance:
            for start in range(0, len(chosen), BATCH):
                batch = chosen[start : start + BATCH]
                for path, image in zip(batch, pool.map(read, batch), strict=True):
                    if isinstance(image, UnreadableError):
                        found.unreadable[path] = image
                    else:
                        yield image[::2, ::2] if image[..., 0].size > WHOLE else image
                    advance(1)

    reading = images()
    if measure:
        try:
            found.statistics = pixel_statistics(reading)
        except ValueError as error:
            if len(found.unreadable) < found.read:
                found.why_none = f"no mean: {error}"
    for _ in reading:  # the rest, where there are no statistics
        pass
    return found
