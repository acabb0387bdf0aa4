"""Options of a config for one's own data, and writing it once its data is checked."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from swin_mm.configs import read_config
from swin_mm.datasets.check import check_config
from swin_mm.engine.checkpoint_files import write_atomically

SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")


class InitConfigError(ValueError):
    """Data or options that no config can be written for; the message says what to do."""


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        out: The config to write.
        method: Such as `mask_rcnn`; None takes the default of the task.
        backbone: `tiny`, `small`, `base`, `large`, or what follows `swin_` in a recipe's name;
            None takes `tiny`.
        weights: Weights of a whole model to start from: a published name, a file or an address.
            Without `method` and `backbone` they choose the recipe.
        preset: `full` for a recipe, `small` for a model that trains on a CPU within minutes.
        val_share: Part of the images for validation where the data is not split.
        bands: Bands of the images to use; all by default.
        all_flips: Whether images may be flipped in any direction (microscopes, maps).
        batch: Images a step; by default what fits a GPU of 8 GiB.
        force: Whether to replace files that are there.
        match_names: Whether names of images that are spelled otherwise are matched with files.
        merge_classes: Whether classes of one name are merged.
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
    match_names: bool = False
    merge_classes: bool = False

    def beside(self, ending: str) -> Path:
        """Returns the path of a file that goes with the config, such as `my_config_train.json`."""
        return self.out.parent.resolve() / f"{self.out.stem}_{ending}"

    def split_note(self, count: int, files: str = "") -> str:
        """Says how validation data was split off."""
        return (
            f"{count} images were split off for validation, by the hash of their names, so always "
            f"the same{files}; split by hand if images belong together (frames of a film, tiles of "
            "a map)"
        )


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        config: The config.
        files: Every file, the config among them.
        data: The data in words.
        model: The model and schedule in words.
        notes: What the user should know; one line each.
        checkpoint: What training will leave at its end.
        found: What data set was found in a folder, in words.
    """

    config: Path
    files: list[Path]
    data: str
    model: str
    notes: list[str]
    checkpoint: Path
    found: str = ""


def find_split(root: Path, path: Path) -> str:
    """Returns `train`, `val` or `test` as the names of folders, or of the file, say; else "all"."""
    found = SPLIT.findall(path.relative_to(root).as_posix().lower())
    return found[-1] if found else "all"


def check_out(out: Path, force: bool, others: Sequence[Path] = ()) -> None:
    """Checks that files may be written.

    Raises:
        InitConfigError: The name is not that of a config, or a file is there and not to be
            replaced.
    """
    if out.suffix != ".py":
        raise InitConfigError(f"--out must end in .py, got {out}")
    check_new([out, *others], force)


def check_new(paths: Sequence[Path], force: bool) -> None:
    """Checks that files are not there yet, or may be replaced."""
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise InitConfigError(f"{', '.join(there)} exists already: --force replaces it")


def write_config(options: Options, text: str, new_files: Mapping[Path, str]) -> list[Path]:
    """Writes all files; restores what was there if the config or its data turn out to be wrong.

    Args:
        options: Name the config.
        text: Of the config.
        new_files: Text of other files to write: annotations, lists of names.

    Returns:
        The files written, the config last.

    Raises:
        InitConfigError: A file is there already.
        DatasetError: The data cannot be trained on.
        ConfigError: The config cannot be read.
    """
    check_out(options.out, options.force, list(new_files))
    files = {**new_files, options.out: text}
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path, content in files.items():
            write_atomically(path, content.encode())
        check_config(read_config(options.out))
    except BaseException:
        for path, old in before.items():
            if old is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, old)
        raise
    return list(files)


def common_root(paths: Sequence[str | Path]) -> str:
    """Returns the folder that paths share, with a slash at its end, or "" if that says little."""
    root = os.path.commonpath([str(path) for path in paths])
    return f"{root}/" if root.count("/") >= 2 else ""


def place_below(root: str, path: str | Path, is_folder: bool = False) -> str:
    """Writes a path relative to `root`, where it is below it; a folder with a slash at its end."""
    text = str(path)
    if root and f"{text}/".startswith(root):
        text = os.path.relpath(text, root)
    if not is_folder or not text:
        return text
    return "" if text == "." else f"{text}/"
