"""Downloads that go on where they stopped.

A file is fetched to `NAME.part` and takes its name when it is whole. Beside it lies `NAME.part.tag`
with the server's mark for that version of the file (ETag or date), so that a later run never adds
the end of a new version to the beginning of an old one.
"""

import hashlib
import http.client
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from swin_mm.datasets.prepare.disk import check_room, explain_full_disk
from swin_mm.datasets.prepare.errors import PrepareError
from swin_mm.datasets.progress import show_progress
from swin_mm.version import __version__

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further attempt that brings nothing new
RETRIED = (408, 429, 500, 502, 503, 504)  # passing troubles of a server


class _Interrupted(Exception):
    """The connection failed; what has come is kept."""


def download(url: str, path: Path, size: int | None = None, room: int = 1) -> None:
    """Fetches a file; goes on where an earlier attempt stopped.

    Args:
        url: Where it is.
        path: Where it goes. The folder must exist.
        size: Its length in bytes where that is known.
        room: How many times its length the disk must have room for: twice where it will be unpacked
            there too, since pictures take about as much again.

    Raises:
        PrepareError: The server does not have it or another file of that name, the connection fails
            again and again, or the disk is full.
    """
    part = path.with_name(f"{path.name}.part")
    failures = 0
    while True:
        before = _length(part)
        try:
            _transfer(url, part, size, room)
            break
        except _Interrupted as reason:
            failures = 0 if _length(part) > before else failures + 1
            if failures > len(PAUSES):
                raise PrepareError(
                    f"cannot fetch {url}: {reason}; {_describe_kept(part)}"
                ) from None
            time.sleep(PAUSES[max(0, failures - 1)])
    part.replace(path)
    _tag_file(part).unlink(missing_ok=True)


def _describe_kept(part: Path) -> str:
    if not _length(part):
        return (
            "nothing has come: run this again when the server can be reached, or fetch it from "
            "elsewhere (--mirror URL), or by hand (--archives FOLDER)"
        )
    return f"{_length(part):,} bytes are kept in {part}: run this again to go on from there"


def check_sum(path: Path, checksum: str) -> bool:
    """Tells whether a file has a checksum, such as `md5:c52e...`."""
    algorithm, _, wanted = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with (
        path.open("rb") as file,
        show_progress(f"{path.name}: {algorithm}", _length(path), 0, True) as advance,
    ):
        while block := file.read(CHUNK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest() == wanted


def _transfer(url: str, part: Path, size: int | None, room: int) -> None:
    """Makes one request for what is lacking and writes what comes."""
    done = _length(part)
    response = _request(url, part, done)
    if response is None:  # nothing is lacking
        return
    with response:
        resumed = response.status == http.client.PARTIAL_CONTENT
        total = _total(response, done if resumed else 0)
        if size is not None and total is not None and total != size:
            raise PrepareError(
                f"{url} has {total:,} bytes where {part.name.removesuffix('.part')} has {size:,}: "
                "it is another file; fetch the right one from elsewhere (--mirror), or by hand "
                "(--archives)"
            )
        done = done if resumed else 0
        if total is not None:
            purpose = "fetching and unpacking" if room > 1 else "fetching"
            check_room(part.parent, room * total - done, f"{purpose} {url}")
        kept = "what was fetched is kept, and the next run goes on from there"
        title = part.name.removesuffix(".part")
        with (
            explain_full_disk(part.parent, f"fetching {title}", kept),
            part.open("ab" if resumed else "wb") as file,
            show_progress(title, total, done, in_bytes=True) as advance,
        ):
            if not resumed:  # the file is empty now, so that it never has another version's mark
                tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                _tag_file(part).write_text(tag)
            while block := _read(response):
                file.write(block)
                advance(len(block))
    if total is not None and _length(part) < total:
        raise _Interrupted(f"the connection ended after {_length(part):,} of {total:,} bytes")


def _request(url: str, part: Path, done: int) -> http.client.HTTPResponse | None:
    """Asks for a file from a position on; None if it ends there."""
    headers = {"User-Agent": f"swin_mm/{__version__}"}
    if done:
        headers["Range"] = f"bytes={done}-"
        tag = _tag_file(part).read_text() if _tag_file(part).exists() else ""
        if tag and not tag.startswith("W/"):  # a weak mark may stand for different bytes
            headers["If-Range"] = tag
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range") == f"bytes */{done}":
                return None
            part.unlink()
            raise _Interrupted("the file there has become another; starting anew") from None
        if error.code in RETRIED:
            raise _Interrupted(f"the server says {error.code} {error.reason}") from None
        raise PrepareError(
            f"{url}: the server says {error.code} {error.reason}; fetch {url.rpartition('/')[2]} "
            "from elsewhere (--mirror URL), or by hand (--archives FOLDER)"
        ) from None
    except URLError as error:
        raise _Interrupted(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except http.client.IncompleteRead as error:
        return error.partial
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _total(response: http.client.HTTPResponse, done: int) -> int | None:
    """Returns the length of the whole file, as far as the server tells."""
    span = response.headers.get("Content-Range", "")
    if done and not span.startswith(f"bytes {done}-"):
        raise PrepareError(
            f"{response.url}: asked for bytes {done}-, the server answered {span!r}; fetch it from "
            "elsewhere (--mirror URL)"
        )
    total = span.rpartition("/")[2] if done else response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")
