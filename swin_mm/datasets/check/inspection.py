"""How closely data is looked at, and what becomes of faults."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from swin_mm.datasets.check.images import check_whole, describe_unreadable
from swin_mm.datasets.check.pixels import read_all
from swin_mm.datasets.check.summary import DatasetError
from swin_mm.datasets.reader import Reader
from swin_mm.datasets.statistics import PixelStatistics

SECONDS = 20.0  # for looking into the images of one data set before a training starts
LABEL_MAPS = 256  # read whole before a training starts, evenly over the data set


@dataclass
class Inspection:
    """A check that a training waits for: stops at the first fault, and leaves out what takes long.

    Attributes:
        seconds: Time limit for looking into the images of one data set.
        label_maps: How many label maps of a data set are read whole, at most.
        unreadable: Files that cannot be read, where the check has gone on after them.
        ignored: Label that losses and metrics of a segmentor ignore.
    """

    seconds: float = SECONDS
    label_maps: float = LABEL_MAPS
    unreadable: set[str] = field(default_factory=set)
    ignored: int = 255
    thorough = False

    def attempt(self, check: Callable, *arguments: Any) -> Any:
        """Runs one check; what it raises ends the whole."""
        return check(*arguments)

    def refuse(self, fault: str) -> None:
        """Raises a fault, which ends the whole."""
        raise DatasetError(fault)

    def look_into(
        self, paths: Sequence[str], where: str, reader: Reader, what: str = "image"
    ) -> str | None:
        """Checks image files; returns a warning where not all could be looked at."""
        if not reader.can_check:
            return f"{where}: {what} files are loaded by {reader.name}, and are not checked"
        return self._read_files(paths, where, reader, what)

    def _read_files(
        self, paths: Sequence[str], where: str, reader: Reader, what: str
    ) -> str | None:
        return check_whole(paths, where, self.seconds, what, reader)


@dataclass
class ThoroughInspection(Inspection):
    """A check that is waited for: goes on after faults, and reads every file.

    Attributes:
        threads: How many files are read at once.
        files: How many images and how many label maps of a data set are read, at most.
        faults: What training or testing would fail on, or get wrong without a word.
        statistics: Config path of a data set to mean and deviation of its images' pixels.
    """

    threads: int = 1
    files: float = float("inf")
    faults: list[str] = field(default_factory=list)
    statistics: dict[str, PixelStatistics] = field(default_factory=dict)
    thorough = True

    def __post_init__(self) -> None:
        self.seconds = float("inf")
        self.label_maps = self.files

    def attempt(self, check: Callable, *arguments: Any) -> Any:
        """Runs one check; keeps what it raises, and returns None then."""
        try:
            return check(*arguments)
        except DatasetError as error:
            self.refuse(str(error))
            return None

    def refuse(self, fault: str) -> None:
        """Keeps a fault."""
        self.faults.append(fault)

    def _read_files(
        self, paths: Sequence[str], where: str, reader: Reader, what: str
    ) -> str | None:
        """Decodes every file; of training images, computes mean and deviation on the way."""
        measure = what == "image" and where.startswith("train_dataloader")
        title = f"{where}: {what}s"
        found = read_all(paths, title, reader, self.threads, self.files, measure)
        self.unreadable |= set(found.unreadable)
        if found.unreadable:
            self.refuse(describe_unreadable(found.unreadable, found.read, where, what))
        if found.statistics is not None:
            self.statistics[where] = found.statistics
        if found.why_none:
            self.refuse(f"{where}: {found.why_none}")
        if found.read < len(paths):
            return f"{where}: read {found.read} of {len(paths)} {what} files"
        return None
