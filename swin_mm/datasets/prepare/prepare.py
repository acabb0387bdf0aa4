"""Puts a data set in place: fetch, check, unpack, convert."""

import hashlib
import http.client
import os
import ssl
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image
from torchvision.datasets import Cityscapes

from swin_mm.datasets.prepare.table import Archive, PublicData
from swin_mm.datasets.progress import show_progress

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further attempt
TROUBLE = (URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
GONE = (401, 403, 404, 410)  # what a server says of files that a further attempt does not bring
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)
GIVEN, MADE = "_labelIds.png", "_labelTrainIds.png"
IGNORED = 255


class PrepareError(ValueError):
    """A data set that cannot be put in place; one line: what is wrong, and what to do."""


def prepare_dataset(
    data: PublicData,
    folder: Path | None = None,
    parts: Collection[str] = (),
    mirror: str | None = None,
    delete: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> Path:
    """Puts a data set where configs look for it; what is there already is left alone.

    Archives are fetched to `downloads` in its folder, unless they are there.

    Args:
        data: The data set.
        folder: Where it goes; by default where configs look for it.
        parts: Words for archives that are fetched only if asked for.
        mirror: Address to fetch archives from by name instead of the publisher's.
        delete: Whether to delete archives that were fetched here once they are unpacked.
        log: Called with a line on each step.

    Returns:
        The folder.

    Raises:
        PrepareError: It cannot be put in place; running again continues where this stopped.
    """
    folder = Path(data.folder if folder is None else folder)
    store = folder / "downloads"
    if unknown := sorted(set(parts) - set(data.parts())):
        raise PrepareError(f"no part {', '.join(unknown)}; there is {data.parts() or 'none'}")
    missing = []
    for archive in (a for a in data.archives if not a.part or a.part in parts):
        if _is_unpacked(archive, folder):
            log(f"{archive.name}: its files are in {folder}")
        else:
            missing.append(archive)
    absent = [a.name for a in missing if a.url is None and not (store / a.name).exists()]
    if absent and mirror is None:
        how = data.login.format(folder=store, names=" ".join(absent))
        raise PrepareError(
            f"{' and '.join(absent)} cannot be fetched without a login, and {store} does not have "
            f"them: {how}, and run this again"
        )
    for archive in missing:
        path = store / archive.name
        store.mkdir(parents=True, exist_ok=True)
        is_own = not path.exists()
        if is_own:
            url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else str(archive.url)
            log(f"{archive.name}: fetching from {url}")
            fetch(url, path)
        _check_sum(archive, path)
        log(f"{archive.name}: unpacking to {folder / archive.into}")
        unpack(archive, path, folder)
        if delete and is_own:
            path.unlink()
    if data.folder.endswith("cityscapes"):
        log("converting label maps")
        convert_cityscapes(folder)
    return folder


def fetch(url: str, path: Path) -> None:
    """Fetches a file by way of `NAME.part`, which a later attempt continues.

    Raises:
        PrepareError: The server does not have it, or the connection fails again and again.
        OSError: It cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    for pause in (*PAUSES, None):
        try:
            _transfer(url, part)
            break
        except TROUBLE as error:
            code = getattr(error, "code", None)
            if pause is None or code in GONE:
                raise PrepareError(
                    f"cannot fetch {url}: {error}; run this again to go on from what has come, or "
                    f"fetch it from elsewhere (--mirror URL), or by hand to {path}"
                ) from None
            time.sleep(pause)
    part.replace(path)


def _transfer(url: str, part: Path) -> None:
    """Makes one request for what is missing and writes what comes."""
    done, name = part.stat().st_size if part.exists() else 0, part.name.removesuffix(".part")
    headers = {"User-Agent": "swin_mm", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and done:  # nothing is missing
            return
        raise
    with response:
        done = done if response.status == http.client.PARTIAL_CONTENT else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
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


def _check_sum(archive: Archive, path: Path) -> None:
    """Compares the checksum where one is known."""
    algorithm, _, wanted = archive.checksum.partition(":")
    if not wanted:
        return
    digest = hashlib.new(algorithm)
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
    if digest.hexdigest() != wanted:
        raise PrepareError(
            f"{path} has not the checksum {archive.checksum}: delete it and run this again to "
            "fetch it; if it comes out the same, get it elsewhere (--mirror URL)"
        )


def _is_unpacked(archive: Archive, folder: Path) -> bool:
    """Whether a folder holds as many files of each pattern as are published, or more."""
    counts = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in archive.contents}
    is_whole = all(counts[pattern] >= count for pattern, count in archive.contents.items())
    return is_whole and not _mark(archive, folder).exists()


def _mark(archive: Archive, folder: Path) -> Path:
    """A file that is there while an archive is being unpacked."""
    return folder / f".unpacking_{archive.name}"


def unpack(archive: Archive, path: Path, folder: Path) -> None:
    """Unpacks an archive, and those within it; files of the same name are replaced.

    Raises:
        PrepareError: It is damaged, has not the published files, or would write outside.
        OSError: It cannot be written.
    """
    target = folder / archive.into
    target.mkdir(parents=True, exist_ok=True)
    mark = _mark(archive, folder)
    mark.touch()
    try:
        _extract(path, target)
        for inner in (target / name for name in archive.inner):
            _extract(inner, inner.parent)
            inner.unlink()
    except (*BROKEN, FileNotFoundError) as error:
        reason = " ".join(str(error).split())
        raise PrepareError(f"{path} is damaged ({reason}): delete it and run this again") from None
    mark.unlink()
    if not _is_unpacked(archive, folder):
        wanted = ", ".join(f"{count} {pattern}" for pattern, count in archive.contents.items())
        raise PrepareError(f"{path} has not the published files ({wanted}): delete it")


def _extract(path: Path, folder: Path) -> None:
    """Python keeps members in the folder: of a zip by their names, of a tar by the data filter."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            zipped.extractall(folder)
    else:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")


def convert_cityscapes(folder: Path) -> None:
    """Writes `*_gtFine_labelTrainIds.png` beside every `*_gtFine_labelIds.png`.

    mmseg's own converter draws the polygons of the annotations with `cityscapesscripts`. Every
    pixel of the published maps is already the id of the polygon on top, so looking up the class of
    each id gives the same map without that package, and faster.
    """
    given = sorted(folder.glob(f"gtFine/*/*/*_gtFine{GIVEN}"))
    todo = [path for path in given if not _made(path).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool, show_progress("maps", len(todo)) as advance:
        for _ in pool.map(_convert, todo):
            advance(1)


def _made(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(GIVEN) + MADE)


def _convert(path: Path) -> None:
    lookup = np.full(256, IGNORED, dtype=np.uint8)
    for label in Cityscapes.classes:
        if label.id >= 0:
            lookup[label.id] = label.train_id
    with Image.open(path) as image:
        labels = lookup[np.array(image)]
    # Whole or not there: what exists is left alone by the next run.
    partial = _made(path).with_suffix(".partial")
    Image.fromarray(labels).save(partial, format="png")
    partial.replace(_made(path))
