"""The check that is asked for: every file of a config's data, all faults, and what the data is."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config

from swin_mm.datasets.check.config import look_over
from swin_mm.datasets.check.inspection import ThoroughInspection
from swin_mm.datasets.check.summary import DatasetError, DatasetSummary
from swin_mm.datasets.statistics import PixelStatistics


@dataclass(frozen=True)
class Findings:
    """What a thorough check found.

    Attributes:
        summary: Classes, and per data loader counts and warnings.
        faults: What training or testing would fail on, or get wrong without a word; one line each.
        unreadable: Image files and label maps that cannot be read.
        statistics: Config path of each data set for training to mean and deviation of its images'
            pixels, in the order in which the images are loaded (RGB).
    """

    summary: DatasetSummary
    faults: list[str]
    unreadable: list[str]
    statistics: dict[str, PixelStatistics]

    def warnings(self) -> list[str]:
        """Returns what is legal but worth knowing; one line each."""
        return [warning for split in self.summary.distinct() for warning in split.warnings]


def inspect_config(
    cfg: Config,
    splits: Sequence[str] = ("train", "val", "test"),
    threads: int = 1,
    files: int | None = None,
) -> Findings:
    """Checks the data of a config wholly, going on after faults.

    Built-in data is drawn first where it is not there.

    Args:
        cfg: Whole config.
        splits: Which data loaders to check; those that it lacks are left out.
        threads: How many files to read at once.
        files: How many images and label maps of a data set to read at most, spread evenly; None
            reads all.

    Raises:
        DatasetError: The config itself is such that nothing can be checked.
    """
    limit = float("inf") if files is None else files
    inspection = ThoroughInspection(threads=threads, files=limit)
    summary = look_over(cfg, splits, inspection)
    if not summary.splits:
        raise DatasetError(
            f"the config has no data to check: none of {', '.join(splits)}_dataloader has a dataset"
        )
    return Findings(
        summary, inspection.faults, sorted(inspection.unreadable), inspection.statistics
    )
