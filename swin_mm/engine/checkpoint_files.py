"""Checkpoint files that are either whole or absent, and the search for the newest whole one.

A training process can be killed at any moment. Files are therefore written beside their place and
moved onto it by `os.replace`, which the operating system does in one step, and a file that somebody
else left incomplete is recognised before anything is resumed from it.
"""

import glob
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from swin_mm.checkpoint.files import FileContentError
from swin_mm.checkpoint.files.archive import ZIP_MAGIC, Archive
from swin_mm.checkpoint.files.sharded import read_sharded

ATOMIC_BACKEND = "swin_mm_atomic"
POINTER_NAME = "last_checkpoint"  # mmengine's name for the file that names the newest checkpoint
PARTIAL_SUFFIX = ".partial"
REPLACED_SUFFIX = ".replaced"  # a folder that is about to have a newer one in its place


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, `path` holds its old or its new content entirely."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, since a rename is one step only within a file system.
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    _remove_partial_files_of(path)
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _remove_partial_files_of(path: Path) -> None:
    """Deletes what killed processes of this machine left of earlier tries to write `path`."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.[0-9]*{PARTIAL_SUFFIX}"):
        if not _has_writer(partial):
            partial.unlink(missing_ok=True)


def _has_writer(partial: Path) -> bool:
    """Whether another process of this machine may be writing a file; folders do not say."""
    number = partial.name.removesuffix(PARTIAL_SUFFIX).rpartition(".")[2]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's, or no number of a process
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@register_backend(ATOMIC_BACKEND)
class AtomicLocalBackend(LocalBackend):
    """mmengine's backend for local files, except that a file is never seen half written."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomically(filepath, obj)


def partial_folder(path: Path) -> Path:
    """Where a folder is written, before `replace_folder` gives it its name."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


def replace_folder(partial: Path, path: Path) -> None:
    """Gives a folder its name, which another one may have.

    A folder cannot be moved onto another in one step. Where a kill leaves neither under the name,
    `remove_partial_files` puts the old one back.
    """
    old = path.with_name(f".{path.name}{REPLACED_SUFFIX}")
    _sync_folder(partial)
    if path.exists():
        os.replace(path, old)
    os.replace(partial, path)
    _sync_folder(path.parent)
    _remove(old)


def remove_partial_files(folder: str | Path) -> list[Path]:
    """Deletes what killed processes left of what they were writing in a folder; lists it.

    What another run that uses the folder is writing stays: it would fail for lack of it.
    """
    folder = Path(folder)
    for old in folder.glob(f".*{REPLACED_SUFFIX}"):
        path = old.with_name(old.name[1:].removesuffix(REPLACED_SUFFIX))
        if path.exists():
            _remove(old)
        else:
            os.replace(old, path)
    partial = [p for p in sorted(folder.glob(f".*{PARTIAL_SUFFIX}")) if not _has_writer(p)]
    for path in partial:
        _remove(path)
    return partial


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def find_damage(path: str | Path) -> str | None:
    """Says what is wrong with a checkpoint, None when it is whole; nothing is executed.

    Reads the whole file, or the folder of a sharded training, once and compares the checksums that
    `torch.save` stored. A file written before PyTorch 1.6 has none and passes.
    """
    path = Path(path)
    try:
        if path.is_dir():
            read_sharded(path)
            return None
        if not path.is_file():
            return "there is no such file"
        if path.stat().st_size == 0:
            return "the file is empty"
        with open(path, "rb") as file:
            start = file.read(len(ZIP_MAGIC))
        if start != ZIP_MAGIC:
            # A pickle, the first thing in an old file, starts with this byte.
            return None if start[:1] == b"\x80" else "it does not start as files of torch.save do"
        with Archive(path) as archive:
            archive.check_rest()
    except FileContentError as error:
        return str(error)
    return None


def newest_checkpoint(
    folder: str | Path,
    templates: Sequence[str],
    pointer: str | Path | None = None,
    report: Callable[[str], object] = lambda text: None,
) -> Path | None:
    """Finds the newest whole checkpoint, also when the pointer file is missing, stale or wrong.

    Names match mmengine's templates, such as `epoch_{}.pth`; those of folders end before `.pth`.
    What the pointer, `last_checkpoint` in the working folder, names counts as written when the
    pointer was, so that a copied folder, where times mean little, resumes from the right file.
    `report` is called with one line for each newer checkpoint, file or folder, that is damaged.
    """
    folder = Path(folder)
    stems = (re.escape(template.removesuffix(".pth")) for template in templates)
    pattern = re.compile("|".join(stem.replace(r"\{\}", r"(\d+)") for stem in stems))
    ages = {}  # path -> (time written in ns, step)
    for path in folder.iterdir() if folder.is_dir() else ():
        match = pattern.fullmatch(path.name.removesuffix(".pth"))
        if match:
            ages[path] = (path.stat().st_mtime_ns, int(match[1] or 0))
    if pointer is not None and Path(pointer).is_file():
        # Only the name is used: the folder may have been moved since.
        named = folder / Path(Path(pointer).read_text().strip()).name
        if named in ages:
            written, step = ages[named]
            ages[named] = (max(written, Path(pointer).stat().st_mtime_ns), step)
    for path in sorted(ages, key=ages.__getitem__, reverse=True):
        damage = find_damage(path)
        if damage is None:
            return path
        report(f"The checkpoint {path} is passed over, it is not whole: {damage}.")
    return None
