"""Work folders of several machines: who writes, and who lacks the checkpoint to resume from."""

import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import (
    all_gather_object,
    barrier,
    broadcast_object_list,
    get_rank,
    get_world_size,
)
from mmengine.runner import Runner

from swin_mm.checkpoint import CheckpointError, load_checkpoint_file
from swin_mm.checkpoint.files.sharded import INDEX
from swin_mm.engine.checkpoint_files import POINTER_NAME, newest_checkpoint, write_atomically

CHUNK_BYTES = 64 * 2**20


def find_writers(folder: Path) -> list[int]:
    """Finds which ranks write checkpoints: the first of those that see the same folder.

    All processes must call it. With a folder that all machines share, rank 0 alone writes. Without,
    one process of each machine writes the same file, so that the loss of a machine loses nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marks = [folder / name for name in all_gather_object(f".{uuid.uuid4().hex}")]
    waiting, writers = set(range(get_world_size())), []
    while waiting:
        writer = min(waiting)
        writers.append(writer)
        if get_rank() == writer:
            marks[writer].touch()
        barrier()
        seen = all_gather_object(marks[writer].exists())
        if get_rank() == writer:
            marks[writer].unlink()
        waiting -= {writer, *(rank for rank in waiting if seen[rank])}
    return writers


def point_to_newest(
    runner: Runner, folder: Path, templates: Sequence[str], writers: list[int]
) -> None:
    """Has `last_checkpoint` name the newest whole checkpoint that any machine has, for a resume.

    `templates` are the names of checkpoints, as mmengine has them, `writers` those of
    `find_writers`.
    """
    pointer = Path(runner.work_dir, POINTER_NAME)
    is_writer, newest = get_rank() in writers, None
    damaged: list[str] = []
    if is_writer:
        newest = newest_checkpoint(folder, templates, pointer, damaged.append)
    newest = share_newest(newest, folder, writers)
    named = pointer.read_text().strip() if pointer.is_file() else None
    if not is_writer:
        return
    for line in damaged:
        runner.logger.warning(line)
    if newest is None:
        pointer.unlink(missing_ok=True)
        others = any(folder.glob("*.pth")) or any(folder.glob(f"*/{INDEX}"))  # such as best ones
        is_lost = named is not None or bool(damaged) or others
        runner.logger.log(
            logging.WARNING if is_lost else logging.INFO,
            f"No whole checkpoint in {folder}: training starts at the beginning.",
        )
    elif str(newest) != named:
        runner.logger.warning(
            f"{POINTER_NAME} named {named}, but the newest whole checkpoint is {newest}."
        )
        write_atomically(pointer, str(newest).encode())


def share_newest(newest: Path | None, folder: Path, writers: list[int]) -> Path | None:
    """Gives the folder of each writer the checkpoint that is furthest of all; all must call it.

    `newest` is the newest whole one of this process's folder, if it is a writer. Returns the one to
    resume from in its folder; None where no machine has any.

    Raises:
        CheckpointError: It is a folder of a sharded model.
    """
    if len(writers) == 1:
        return newest
    own = None if newest is None else (newest.name, *_progress(newest))
    known = all_gather_object(own if get_rank() in writers else None)
    have = [rank for rank in writers if known[rank]]
    if not have:
        return None
    source = max(have, key=lambda rank: (known[rank][1:3], -rank))
    lacking = [rank for rank in writers if known[rank] != known[source]]
    if lacking:
        if newest is not None and newest.is_dir() and get_rank() == source:
            raise CheckpointError(
                f"{newest} is on one machine alone: make a file of it (swin-mm convert {newest} "
                f"{newest}.pth), and set default_hooks.checkpoint.whole_files=True"
            )
        content = _send(newest, source, keep=get_rank() in lacking)
        if get_rank() in lacking:
            newest = folder / known[source][0]
            write_atomically(newest, content)
    return newest


def _progress(path: Path) -> tuple[int, int, str]:
    """The steps done and validated in a checkpoint, and the run that it is of."""
    meta: dict[str, Any] = load_checkpoint_file(str(path)).get("meta") or {}
    step = int(meta.get("iter", 0))
    return step, int(meta.get("validated_iter", step)), str(meta.get("experiment_name"))


def _send(path: Path | None, source: int, keep: bool) -> bytes:
    """Sends a file of rank `source` to all, in parts; returns it where it is to be kept."""
    parts: list[bytes] = []
    with open(path if path and get_rank() == source else os.devnull, "rb") as file:
        while True:
            part = [file.read(CHUNK_BYTES)]
            broadcast_object_list(part, source)
            if not part[0]:
                return b"".join(parts)
            if keep:
                parts += part
