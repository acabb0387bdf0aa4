"""Fetches and unpacks archives; a download continues where an earlier one stopped."""

import hashlib
import http.client
import os
import shutil
import ssl
import tarfile
import time
import zipfile
import zlib
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from swin_mm.datasets.progress import show_progress

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further attempt
TROUBLE = (URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
GONE = (401, 403, 404, 410)  # what a server says of files that a further attempt does not bring
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


class PrepareError(ValueError):
    """A data set that cannot be put in place; one line: what is wrong, and what to do."""


def download(url: str, path: Path, size: int | None = None) -> None:
    """Fetches a file by way of `NAME.part`, which a later attempt continues.

    Args:
        url: Where it is.
        path: Where it goes. The folder must exist.
        size: Its length in bytes where that is known.

    Raises:
        PrepareError: The server does not have it or another file of that name, or the connection
            fails again and again.
        OSError: It cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    for pause in (*PAUSES, None):
        try:
            _transfer(url, part, size)
            break
        except TROUBLE as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            code = error.code if isinstance(error, HTTPError) else None
            reason = f"{code} {reason}" if code else reason
            if pause is None or code in GONE:
                raise PrepareError(
                    f"cannot fetch {url}: {reason}; run this again to go on from what "
                    f"has come, or fetch {path.name} from elsewhere (--mirror URL), or by hand "
                    "(--archives FOLDER)"
                ) from None
            if code == 416:  # the file there is shorter than what has come: another version
                part.unlink()
            time.sleep(pause)
    part.replace(path)


def _transfer(url: str, part: Path, size: int | None) -> None:
    """Makes one request for what is missing and writes what comes."""
    done, name = part.stat().st_size if part.exists() else 0, part.name.removesuffix(".part")
    headers = {"User-Agent": "swin_mm", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # nothing is missing
        raise
    with response:
        done = done if response.status == http.client.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        if None not in (size, total) and total != size:
            raise PrepareError(
                f"{url} has {total:,} bytes where {name} has {size:,}: it is another file; fetch "
                "the right one from elsewhere (--mirror), or by hand (--archives)"
            )
        with (
            part.open("ab" if done else "wb") as file,
            show_progress(name, total, done, in_bytes=True) as advance,
        ):
            while block := response.read(CHUNK):
                file.write(block)
                advance(len(block))
                done += len(block)
    if total is not None and done < total:
        raise ConnectionError(f"the connection ended after {done:,} of {total:,} bytes")


def has_checksum(path: Path, checksum: str) -> bool:
    """Returns whether a file has a checksum, such as `md5:c52e...`."""
    algorithm, _, wanted = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    return digest.hexdigest() == wanted


def unpack(archive: Path, folder: Path, inner: tuple[str, ...] = ()) -> None:
    """Unpacks an archive into a folder.

    It is unpacked beside, and moved into place when the whole has been written and its checksums
    are right. Files of the same name are replaced, others stay.

    Args:
        archive: A zip or a tar, compressed or not.
        folder: Where its files go; made if absent.
        inner: Archives within, unpacked where they lie and then removed.

    Raises:
        PrepareError: It is damaged, or would write outside of the folder.
        OSError: It cannot be written. The folder is then as it was.
    """
    beside = folder / f".unpacking_{archive.name}"
    shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
    beside.mkdir(parents=True)
    try:
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
    """Python keeps members in the folder: of a zip by their names, of a tar by the data filter."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(folder)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        else:
            raise tarfile.TarError("it is neither a zip nor a tar archive")
    except BROKEN as error:
        raise PrepareError(
            f"{archive} is damaged ({error}): delete it and run this again to fetch it"
        ) from None


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
