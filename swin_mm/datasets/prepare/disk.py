"""Room on the disk: asked before it is taken, and told when it runs out."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swin_mm.datasets.prepare.errors import PrepareError

GIB = 2**30
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Checks that a disk has room.

    Args:
        folder: An existing folder on it.
        needed: Bytes.
        purpose: What they are for, for the message.

    Raises:
        PrepareError: There is less.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PrepareError(
            f"{purpose} needs {_gib(needed)} on the disk of {folder}, which has {_gib(free)} free: "
            "free some, or choose another disk with --folder; nothing there has been changed"
        )


@contextmanager
def explain_full_disk(folder: Path, purpose: str, kept: str) -> Iterator[None]:
    """Turns the system's error of a disk that fills up meanwhile into ours.

    Args:
        folder: Where the block writes.
        purpose: What it does, for the message.
        kept: What becomes of what was written, for the message.

    Raises:
        PrepareError: The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        free = shutil.disk_usage(folder).free
        raise PrepareError(
            f"the disk of {folder} is full ({_gib(free)} free) while {purpose}: free some and run "
            f"this again; {kept}"
        ) from None


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 100 else f"{size:,} bytes"
