"""Unpacks archives: nothing of one is in place before all of it has been read and checked."""

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from swin_mm.datasets.prepare.disk import check_room, explain_full_disk
from swin_mm.datasets.prepare.errors import PrepareError
from swin_mm.datasets.progress import show_progress

BLOCK = 4096  # bytes that a disk gives out at a time
CHUNK = 2**20  # bytes
LITTER = ("__MACOSX", ".DS_Store")  # what macOS adds to archives
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def unpack(archive: Path, folder: Path, inner: tuple[str, ...] = ()) -> None:
    """Unpacks an archive into a folder.

    It is unpacked beside, and moved into place when the whole has been written and its checksums
    are right. Files of the same name are replaced, others stay.

    Args:
        archive: A `.zip` or a tar, compressed or not.
        folder: Where its files go; made if absent.
        inner: Archives within, unpacked where they lie and then removed.

    Raises:
        PrepareError: It is damaged, would write outside of the folder, or the disk is full. The
            folder is then as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".unpacking_{archive.name}"
    if beside.exists():  # of a run that was ended
        shutil.rmtree(beside)
    beside.mkdir()
    try:
        with explain_full_disk(
            folder, f"unpacking {archive}", "what was there before is as it was"
        ):
            _extract(archive, beside)
            for name in inner:
                if not (beside / name).is_file():
                    raise PrepareError(f"{archive} has no {name}: it is another archive; delete it")
                _extract(beside / name, (beside / name).parent)
                (beside / name).unlink()
        _move(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                members = [m for m in file.infolist() if not (m.is_dir() or _is_litter(m.filename))]
                _write(
                    archive,
                    folder,
                    [(m.filename, m.file_size) for m in members],
                    (file.open(member) for member in members),
                )
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as file:
                members = [m for m in file.getmembers() if not (m.isdir() or _is_litter(m.name))]
                _refuse_links(archive, members)
                _write(
                    archive,
                    folder,
                    [(m.name, m.size) for m in members],
                    (file.extractfile(member) for member in members),
                )
        else:
            raise PrepareError(
                f"{archive} is neither a zip nor a tar archive: delete it and run this again"
            )
    except BROKEN as error:
        raise PrepareError(
            f"{archive} is damaged ({error}): delete it and run this again, to fetch it anew"
        ) from None


def _is_litter(name: str) -> bool:
    return any(part in LITTER for part in name.split("/"))


def _refuse_links(archive: Path, members: list[tarfile.TarInfo]) -> None:
    other = [m.name for m in members if not m.isreg()]
    if other:  # a link to a folder elsewhere would let later members out
        raise PrepareError(
            f"{archive} has links or devices, such as {other[0]}, which no data set here needs: "
            "nothing of it was unpacked; fetch it from its publisher"
        )


def _write(
    archive: Path, folder: Path, members: list[tuple[str, int]], contents: Iterator[BinaryIO]
) -> None:
    """Writes members, given their names and sizes, after checking all names and the room."""
    root = folder.resolve()
    for name, _ in members:
        # Windows' paths too: nobody packs a backslash in earnest.
        target = (root / name).resolve()
        if "\\" in name or not target.is_relative_to(root) or target == root:
            raise PrepareError(
                f"{archive} would write to {name!r}, outside of its folder: nothing of it was "
                "unpacked; fetch it from its publisher"
            )
    needed = sum(-(-size // BLOCK) * BLOCK for _, size in members)
    check_room(folder, needed, f"unpacking {archive}")
    with show_progress(f"{archive.name}: unpacking", len(members)) as advance:
        for (name, _), source in zip(members, contents, strict=True):
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, CHUNK)
            advance(1)


def _move(source: Path, target: Path) -> None:
    """Moves all that is in a folder; folders that the target lacks go as one."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            os.replace(path, place)
