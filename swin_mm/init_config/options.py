"""What the user may choose, and what is said of the files that were written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


class InitConfigError(ValueError):
    """Data or options that no config can be written for; the message says what to do."""


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        out: The config to write.
        method: Such as `mask_rcnn`; None takes the default of the task, or that of the weights.
        backbone: `tiny`, `small`, `base`, `large`, or what follows `swin_` in a recipe's name; None
            takes `tiny`, or that of the weights.
        preset: `full` for a recipe, `small` for a model that trains on a CPU within minutes.
        weights: Weights of a whole model to start from: a published name, a file or an address.
        val_share: Part of the images for validation where the data is not split.
        bands: Bands of the images to use; all by default.
        all_flips: Whether images may be flipped in any direction (microscopes, maps).
        batch: Images a step; by default what fits a GPU of 8 GiB.
        force: Whether to replace files that are there.
    """

    out: Path = Path("my_config.py")
    method: str | None = None
    backbone: str | None = None
    preset: str = "full"
    weights: str | None = None
    val_share: float = 0.2
    bands: Sequence[int] | None = None
    all_flips: bool = False
    batch: int | None = None
    force: bool = False

    def beside(self, ending: str) -> Path:
        """Returns the path of a file that goes with the config, such as `my_config_train.json`."""
        return self.out.parent.resolve() / f"{self.out.stem}_{ending}"

    def check_new(self, *paths: Path) -> None:
        """Checks that files are not there yet, or may be replaced."""
        there = [str(path) for path in paths if path.exists()]
        if there and not self.force:
            raise InitConfigError(f"{', '.join(there)} exists already: --force replaces it")


class Written(NamedTuple):
    """What was written, and what to say of it."""

    config: Path
    files: list[Path]  # the config among them
    data: str
    model: str  # and its schedule
    notes: list[str]
    checkpoint: Path  # that training will leave at its end
    found: str  # what data set is in a folder


def find_split(root: Path, path: Path) -> str:
    """Returns `train`, `val` or `test` as the names of folders, or of the file, say; else "all"."""
    found = SPLIT.findall(path.relative_to(root).as_posix().lower())
    return found[-1] if found else "all"
