"""Unpacks archives: nothing of one is in place before all of it has been read and checked."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from swin_mm.datasets.prepare.disk import PrepareError, check_room, explain_full_disk

BLOCK = 4096  # bytes that a disk gives out at a time
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def unpack(archive: Path, folder: Path, inner: tuple[str, ...] = ()) -> None:
    """Unpacks an archive into a folder.

    It is unpacked beside, and moved into place when the whole has been written and its checksums
    are right. Files of the same name are replaced, others stay.

    Args:
        archive: A zip or a tar, compressed or not.
        folder: Where its files go; made if absent.
        inner: Archives within, unpacked where they lie and then removed.

    Raises:
        PrepareError: It is damaged, would write outside of the folder, or the disk is full. The
            folder is then as it was.
    """
    beside = folder / f".unpacking_{archive.name}"
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    beside.mkdir(parents=True)
    kept = "what was there before is as it was"
    try:
        with explain_full_disk(folder, f"unpacking {archive}", kept):
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
        with _open(archive) as file:
            _check_members(archive, folder, file)
            if isinstance(file, tarfile.TarFile):
                file.extractall(folder, filter="data")
            else:
                file.extractall(folder)
    except BROKEN as error:
        raise PrepareError(
            f"{archive} is damaged ({error}): delete it and run this again to fetch it"
        ) from None


def _open(archive: Path) -> zipfile.ZipFile | tarfile.TarFile:
    if zipfile.is_zipfile(archive):
        return zipfile.ZipFile(archive)
    if tarfile.is_tarfile(archive):
        return tarfile.open(archive)
    raise PrepareError(
        f"{archive} is neither a zip nor a tar archive: delete it and run this again"
    )


def _check_members(archive: Path, folder: Path, file: zipfile.ZipFile | tarfile.TarFile) -> None:
    """Checks the names and kinds of all members, and the room on the disk."""
    # A link to a folder elsewhere would let later members out.
    if isinstance(file, tarfile.TarFile):
        members = [(m.name, m.size, m.isreg() or m.isdir()) for m in file.getmembers()]
    else:
        members = [
            (m.filename, m.file_size, not stat.S_ISLNK(m.external_attr >> 16))
            for m in file.infolist()
        ]
    if odd := [name for name, _, is_plain in members if not is_plain]:
        raise PrepareError(
            f"{archive} has links or devices, such as {odd[0]}, which no data set here needs: "
            "nothing of it was unpacked; fetch it from its publisher"
        )
    for name, *_ in members:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise PrepareError(
                f"{archive} would write to {name!r}, outside of its folder: nothing of it was "
                "unpacked; fetch it from its publisher"
            )
    needed = sum(-(-size // BLOCK) * BLOCK for _, size, _ in members)
    check_room(folder, needed, f"unpacking {archive}")


def _move(source: Path, target: Path) -> None:
    """Moves all that is in a folder; folders that the target lacks go as one."""
    for path in sorted(source.iterdir()):
        place = target / path.name
        if path.name in ("__MACOSX", ".DS_Store"):  # what macOS adds to archives
            continue
        if path.is_dir() and place.is_dir():
            _move(path, place)
        else:
            os.replace(path, place)
