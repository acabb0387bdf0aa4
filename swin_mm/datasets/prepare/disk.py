"""Errors of preparing a data set, and checks of disk space."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIB = 2**30


class PrepareError(ValueError):
    """A data set that cannot be put in place; one line: what is wrong, and what to do."""


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Checks that the disk of an existing folder has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PrepareError(
            f"{purpose} needs {_gib(needed)} on the disk of {folder}, which has {_gib(free)} free: "
            "free some, or choose another disk with --folder; nothing there has been changed"
        )


@contextmanager
def explain_full_disk(folder: Path, purpose: str, kept: str) -> Iterator[None]:
    """Turns the system's error of a disk that fills up into a `PrepareError`.

    The message has what the block does (`purpose`) and what becomes of what it wrote (`kept`).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = _gib(shutil.disk_usage(folder).free)
        raise PrepareError(
            f"the disk of {folder} is full ({free} free) while {purpose}: free some and run "
            f"this again; {kept}"
        ) from None


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size:,} bytes"
