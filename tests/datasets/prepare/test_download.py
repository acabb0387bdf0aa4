"""Downloads from a local server: whole, cut short, from servers of every kind, full disks."""

import errno
import hashlib
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from swin_mm.datasets.prepare.disk import PrepareError
from swin_mm.datasets.prepare.download import download, has_checksum

CONTENT = np.random.default_rng(0).bytes(100_000)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def target(server, tmp_path) -> Path:
    server.files["a.zip"] = CONTENT
    return tmp_path / "a.zip"


def fetch(server, target: Path, size: int | None = None) -> bytes:
    download(f"{server.url}/a.zip", target, size)
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # nothing is left over
    return target.read_bytes()


def refuse(server, target: Path, *words: str, size: int | None = None, room: int = 1) -> None:
    with pytest.raises(PrepareError) as error:
        download(f"{server.url}/a.zip", target, size, room)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_plain(server, target):
    assert fetch(server, target, len(CONTENT)) == CONTENT
    assert server.requests == [None]


@pytest.mark.parametrize("tag", ['"one"', None], ids=["tag", "no tag"])
def test_cut_short_goes_on_by_itself(server, target, tag):
    server.tag, server.cuts = tag, [30_000, 50_000]
    assert fetch(server, target) == CONTENT
    assert server.requests == [None, "bytes=30000-", "bytes=80000-"]


def test_the_next_run_goes_on(server, target):
    server.cuts = [30_000, 0, 0, 0, 0]
    refuse(
        server,
        target,
        "cannot fetch http://127.0.0.1",
        "the connection ended after 30,000 of 100,000 bytes",
        f"30,000 bytes are kept in {target}.part: run this again to go on from there",
    )
    assert not target.exists()
    server.requests.clear()
    assert fetch(server, target) == CONTENT
    assert server.requests == ["bytes=30000-"]


def test_server_without_ranges_starts_anew(server, target):
    server.ranges, server.cuts = False, [30_000]
    assert fetch(server, target) == CONTENT
    assert server.requests == [None, "bytes=30000-"]


def test_new_version_on_the_server_starts_anew(server, target):
    server.cuts = [30_000, 0, 0, 0, 0]
    refuse(server, target, "run this again")
    server.tag, server.files["a.zip"] = '"two"', CONTENT[::-1]
    assert fetch(server, target) == CONTENT[::-1]


def test_part_that_is_whole_already(server, target):
    Path(f"{target}.part").write_bytes(CONTENT)
    assert fetch(server, target) == CONTENT
    assert server.requests == ["bytes=100000-"]


def test_part_that_is_longer_than_the_file(server, target):
    Path(f"{target}.part").write_bytes(CONTENT + b"more")
    assert fetch(server, target) == CONTENT


def test_length_that_the_server_does_not_tell(server, target):
    server.lengths = False
    assert fetch(server, target) == CONTENT


def test_passing_trouble_of_the_server(server, target):
    server.failures = [503, 500]
    assert fetch(server, target) == CONTENT


def test_lasting_trouble_of_the_server(server, target):
    server.failures = [503] * 4
    refuse(server, target, "the server says 503", "run this again")
    assert len(server.requests) == 4


def test_file_that_is_not_there(server, target):
    del server.files["a.zip"]
    refuse(server, target, f"{server.url}/a.zip: the server says 404", "--mirror URL", "--archives")
    assert len(server.requests) == 1
    assert not list(target.parent.iterdir())


def test_no_server(server, target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with pytest.raises(
            PrepareError, match=f"cannot fetch {url}: .*refused; nothing has come: run"
        ):
            download(url, target)


def test_another_length_than_known(server, target):
    words = "has 100,000 bytes where a.zip has 99,999: it is another file"
    refuse(server, target, words, size=99_999)


@pytest.mark.parametrize(
    ("free", "room", "words"),
    [
        (90_000, 1, "fetching {} needs 100,000"),
        (150_000, 2, "fetching and unpacking {} needs 200,000"),
    ],
)
def test_no_room_is_said_before_anything_is_written(server, target, monkeypatch, free, room, words):
    target.write_bytes(b"an older one")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - free, free))
    words = words.format(f"{server.url}/a.zip")
    rest = f" bytes on the disk of {target.parent}, which has {free:,} bytes free"
    refuse(server, target, words + rest, room=room)
    assert target.read_bytes() == b"an older one"
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]


def test_room_is_counted_without_what_has_come(server, target, monkeypatch):
    server.cuts = [60_000, 0, 0, 0, 0]
    refuse(server, target, "60,000 bytes are kept")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 50_000, 50_000))
    assert fetch(server, target) == CONTENT  # 40,000 are left to fetch


class FullDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, block: bytes) -> None:
        self.file.write(block[: self.room])
        self.room -= len(block)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_that_fills_up_meanwhile(server, target, monkeypatch):
    target.write_bytes(b"an older one")
    real_open = Path.open

    def open_on_full_disk(path, mode="r", *arguments, **named):
        file = real_open(path, mode, *arguments, **named)
        return FullDisk(file, 40_000) if path.suffix == ".part" else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_on_full_disk)
        refuse(
            server,
            target,
            f"the disk of {target.parent} is full",
            "while fetching a.zip: free some and run this again",
            "what was fetched is kept, and the next run goes on from there",
        )
    assert target.read_bytes() == b"an older one"
    assert fetch(server, target) == CONTENT
    assert server.requests == [None, "bytes=40000-"]


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_checksum(tmp_path, algorithm):
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert has_checksum(path, f"{algorithm}:{digest}")
    path.write_bytes(CONTENT[:-1])
    assert not has_checksum(path, f"{algorithm}:{digest}")
