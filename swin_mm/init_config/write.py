"""Writes the config and what goes with it, once it is seen to load and its data to be sound."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_mm.configs import read_config
from swin_mm.datasets.check import check_config
from swin_mm.engine.checkpoint_files import write_atomically
from swin_mm.init_config.errors import InitConfigError


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
    """

    config: Path
    files: list[Path]
    data: str
    model: str
    notes: list[str]
    checkpoint: Path


def check_out(out: Path, force: bool, others: Sequence[Path] = ()) -> None:
    """Checks that files may be written.

    Raises:
        InitConfigError: The name is not that of a config, or a file is there and not to be
            replaced.
    """
    if out.suffix != ".py":
        raise InitConfigError(f"--out must end in .py, got {out}")
    there = [str(path) for path in (out, *others) if path.exists()]
    if there and not force:
        raise InitConfigError(f"{', '.join(there)} exists already: --force replaces it")


def write_config(
    out: Path,
    text: str,
    new_files: Mapping[Path, str],
    force: bool,
) -> None:
    """Writes all files; if the config turns out not to serve, leaves things as they were.

    Args:
        out: The config.
        text: Its text.
        new_files: Text of other files to write: annotations, lists of names.
        force: Whether to replace files that are there.

    Raises:
        InitConfigError: A file is there already.
        DatasetError: The data cannot be trained on.
        ConfigError: The config cannot be read.
    """
    check_out(out, force, list(new_files))
    files = {**new_files, out: text}
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path, content in files.items():
            write_atomically(path, content.encode())
        check_config(read_config(out))
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_atomically(path, content)
        raise


def as_json(content: Any) -> str:
    """Returns annotations as the text of a file."""
    return json.dumps(content, ensure_ascii=False)


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
