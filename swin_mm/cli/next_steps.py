"""The last lines of a command: what it wrote, and the commands that go on from there."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.runner import Runner


def print_next(*commands: Sequence[object]) -> None:
    """Prints commands that make sense now, each as its words without the program's name."""
    print("\nnext:")
    for words in commands:
        print("  swin-mm " + shlex.join(map(str, words)))


def report_training(runner: "Runner", config: str) -> None:
    """Says where the best checkpoint and the log of a training are, and what to do with them."""
    from swin_mm.engine import CheckpointHook

    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    checkpoint, reason = hooks[0].find_result(runner) if hooks else (None, "")
    if runner.logger.log_file:
        print(f"\nlog: {shorten(runner.logger.log_file)}")
    if checkpoint is None:
        return
    checkpoint = shorten(checkpoint)
    print(f"checkpoint: {checkpoint} ({reason})")
    print_next(
        ["test", config, checkpoint, "--show-dir", "pictures"],
        ["predict", config, checkpoint, "IMAGES"],
        ["export", config, checkpoint],
    )


def shorten(path: str | Path) -> str:
    """The path from the current folder, if it is within it."""
    here = Path.cwd()
    full = Path(os.path.abspath(path))
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)
