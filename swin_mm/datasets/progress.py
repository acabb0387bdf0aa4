"""A progress bar for long work on files."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def show_progress(
    title: str, total: int | None, done: int = 0, in_bytes: bool = False
) -> Iterator[Callable[[float], None]]:
    """Shows a bar below the log while its block runs; on a terminal only.

    Args:
        total: How much there is to do; None if it is not known.
        done: How much of it is done already.
        in_bytes: Whether bytes of a file are counted, or things.

    Yields:
        A function to call with how much has been done since the last call. Threads may call it.
    """
    counts = [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    name = TextColumn("{task.description}", markup=False)
    with Progress(
        *(name, BarColumn(), *counts, TimeRemainingColumn()),
        console=Console(stderr=True),  # standard output may be a file that somebody reads
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda steps: progress.advance(task, steps)
