"""How closely data is looked at, and the errors that were found."""

import os.path
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from swin_mm.datasets.check.images import read_images, spread
from swin_mm.datasets.check.summary import DatasetError, DatasetSummary, examples
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.reader import Reader

T = TypeVar("T")
SECONDS = 20.0  # for looking into the images of one data set before a training starts
LABEL_MAPS = 256  # read whole before a training starts, evenly over the data set
DECODED = 64  # images decoded whole before a training starts


@dataclass
class Inspection:
    """One check of a config's data.

    A quick one, which a training waits for, stops at the first error and leaves out what takes
    long. A thorough one goes on after errors and reads every file.

    Attributes:
        seconds: Time limit for looking into the images of one data set.
        thorough: Whether to go on after errors.
        threads: How many files are read at once.
        decoded: How many images of a data set are decoded whole, at most.
        label_maps: How many label maps of a data set are read, at most.
        ignored: Label that losses and metrics of a segmentor ignore.
        faults: What training or testing would fail on, or silently get wrong; one line each.
        unreadable: Files that cannot be read.
        summary: Classes, and per data loader counts and warnings.
    """

    seconds: float = SECONDS
    thorough: bool = False
    threads: int = 1
    decoded: float = DECODED
    label_maps: float = LABEL_MAPS
    ignored: int = 255
    faults: list[str] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)
    summary: DatasetSummary = field(default_factory=lambda: DatasetSummary((), {}))

    def attempt(self, check: Callable, *arguments: Any) -> Any:
        """Runs one check; a thorough inspection keeps what it raises, and returns None then."""
        try:
            return check(*arguments)
        except DatasetError as error:
            if not self.thorough:
                raise
            self.refuse(str(error))
            return None

    def refuse(self, fault: str) -> None:
        """Raises an error, or keeps it if the inspection is thorough."""
        if not self.thorough:
            raise DatasetError(fault)
        self.faults.append(fault)

    def can_use(self, path: str) -> bool:
        """Returns whether a file was found in order; a quick check has stopped at others."""
        return not self.thorough or (os.path.isfile(path) and path not in self.unreadable)

    def sample(self, items: Sequence[T], title: str) -> Iterator[T]:
        """Yields as many label maps as may be read, spread evenly, with a progress bar."""
        chosen = spread(len(items))[: int(min(self.label_maps, len(items)))]
        deadline = time.monotonic() + self.seconds
        with show_progress(title, len(chosen)) as advance:
            for count, index in enumerate(chosen):
                if count and time.monotonic() > deadline:
                    return
                yield items[index]
                advance(1)

    def look_into(
        self, paths: Sequence[str], where: str, reader: Reader, what: str = "image"
    ) -> list[str]:
        """Reads those image files that exist; warns where not all could be checked."""
        if not reader.can_check:
            return [f"{where}: {what} files are loaded by {reader.name}, and are not checked"]
        paths = [path for path in paths if self.can_use(path)]
        title = f"{where}: {what}s"
        read, unreadable = read_images(
            paths, title, reader, self.threads, self.seconds, self.decoded
        )
        self.unreadable |= set(unreadable)
        if unreadable:
            self.refuse(
                f"{where}: {len(unreadable)} of {read} {what} files are empty, cut short or not "
                f"images: {examples(sorted(unreadable))}; fetch them again, or take them out of "
                f"the data ({unreadable[min(unreadable)]})"
            )
        if read == len(paths):
            return []
        limit = "" if self.thorough else f" in {self.seconds:.0f} s"
        return [f"{where}: checked {read} of {len(paths)} {what} files{limit}"]
