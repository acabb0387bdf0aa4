"""Downloads that continue where they stopped.

A file is fetched to `NAME.part` and takes its name when it is whole. Beside it lies `NAME.part.tag`
with the server's ETag or date, so that a later run never adds the end of a new version to the
beginning of an old one.
"""

import hashlib
import http.client
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from swin_mm.datasets.prepare.disk import PrepareError, check_room, explain_full_disk
from swin_mm.datasets.progress import show_progress

CHUNK = 2**20  # bytes
TIMEOUT = 60  # seconds without a byte
PAUSES = (1, 2, 4, 8, 16)  # seconds before each further attempt that brings nothing new
RETRIED = (408, 429, 500, 502, 503, 504)  # passing troubles of a server


def download(url: str, path: Path, size: int | None = None, room: int = 1) -> None:
    """Fetches a file; continues where an earlier attempt stopped.

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
        except HTTPError as error:
            reason = f"the server says {error.code} {error.reason}"
            if error.code == 416:  # the file there is shorter than what has come: another version
                part.unlink()
            elif error.code not in RETRIED:
                raise PrepareError(
                    f"{url}: {reason}; fetch {path.name} from elsewhere (--mirror URL), or by hand "
                    "(--archives FOLDER)"
                ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _length(part) > before else failures + 1
        if failures > len(PAUSES):
            raise PrepareError(f"cannot fetch {url}: {reason}; {_describe_kept(part)}")
        time.sleep(PAUSES[max(0, failures - 1)])
    part.replace(path)
    _tag_file(part).unlink(missing_ok=True)


def has_checksum(path: Path, checksum: str) -> bool:
    """Returns whether a file has a checksum, such as `md5:c52e...`."""
    algorithm, _, wanted = checksum.partition(":")
    digest = hashlib.new(algorithm)
    title = f"{path.name}: {algorithm}"
    with path.open("rb") as file, show_progress(title, _length(path), 0, True) as advance:
        while block := file.read(CHUNK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest() == wanted


def _transfer(url: str, part: Path, size: int | None, room: int) -> None:
    """Makes one request for what is missing and writes what comes."""
    done, name = _length(part), part.name.removesuffix(".part")
    headers = {"User-Agent": "swin_mm"}
    if done:
        headers["Range"] = f"bytes={done}-"
        tag = _tag_file(part).read_text() if _tag_file(part).exists() else ""
        if tag and not tag.startswith("W/"):  # a weak tag may stand for different bytes
            headers["If-Range"] = tag
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{done}":
            return  # nothing is missing
        raise
    kept = "what was fetched is kept, and the next run goes on from there"
    with response, explain_full_disk(part.parent, f"fetching {name}", kept):
        done = done if response.status == http.client.PARTIAL_CONTENT else 0
        total = _total(response, done)
        if size is not None and total is not None and total != size:
            raise PrepareError(
                f"{url} has {total:,} bytes where {name} has {size:,}: it is another file; fetch "
                "the right one from elsewhere (--mirror), or by hand (--archives)"
            )
        if total is not None:
            purpose = "fetching and unpacking" if room > 1 else "fetching"
            check_room(part.parent, room * total - done, f"{purpose} {url}")
        with (
            part.open("ab" if done else "wb") as file,
            show_progress(name, total, done, in_bytes=True) as advance,
        ):
            if not done:  # the file is empty now, so that it never has another version's tag
                tag = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                _tag_file(part).write_text(tag)
            while block := response.read(CHUNK):
                file.write(block)
                advance(len(block))
    if total is not None and _length(part) < total:
        raise ConnectionError(f"the connection ended after {_length(part):,} of {total:,} bytes")


def _total(response: http.client.HTTPResponse, done: int) -> int | None:
    """Returns the length of the whole file, if the server says it."""
    span = response.headers.get("Content-Range", "")
    if done and not span.startswith(f"bytes {done}-"):
        raise PrepareError(
            f"{response.url}: asked for bytes {done}-, the server answered {span!r}; fetch it from "
            "elsewhere (--mirror URL)"
        )
    total = span.rpartition("/")[2] if done else response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _describe_kept(part: Path) -> str:
    if _length(part):
        return f"{_length(part):,} bytes are kept in {part}: run this again to go on from there"
    return (
        "nothing has come: run this again when the server can be reached, or fetch it from "
        "elsewhere (--mirror URL), or by hand (--archives FOLDER)"
    )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")
