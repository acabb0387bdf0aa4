"""The last lines of a command: what it wrote, and the commands that go on from there."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.runner import Runner

    from swin_mm.engine import CheckpointHook


def print_next(*commands: Sequence[object]) -> None:
    """Prints commands that make sense now, each as its words without the program's name."""
    print("\nnext:")
    for words in commands:
        print("  swin-mm " + shlex.join(map(str, words)))


def report_training(runner: "Runner", config: str) -> None:
    """Says where the best checkpoint and the log of a training are, and what to do with them."""
    from swin_mm.engine import CheckpointHook

    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    checkpoint, reason = find_result(runner, hooks[0]) if hooks else (None, "")
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


def find_result(runner: "Runner", hook: "CheckpointHook") -> tuple[str | None, str]:
    """The checkpoint to go on with after a training: the best, else the newest.

    Returns:
        Its path, None where there is none, and why it is that one.
    """
    from swin_mm.engine.hooks.checkpoint import BEST_METRIC

    def find(path: str | None) -> str | None:
        # A run resumed in another folder may have done no better than the one before, whose it is.
        places = [hook.here(path), path] if path else []
        return next(filter(hook.file_backend.exists, places), None)

    known = runner.message_hub.runtime_info
    keys: list[str] = hook.key_indicators if hook.save_best else []
    for key in keys:
        suffix = "" if len(keys) == 1 else f"_{key}"
        if path := find(known.get(f"best_ckpt{suffix}")):
            name = key if suffix else known.get(BEST_METRIC, [key])[0]
            return path, f"best {name}: {known[f'best_score{suffix}']:.4g}"
    return find(hook.last_ckpt) or find(known.get("last_ckpt")), "the newest"


def shorten(path: str | Path) -> str:
    """The path from the current folder, if it is within it."""
    here = Path.cwd()
    full = Path(os.path.abspath(path))
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(path)
