"""Downloads from a local server: whole, cut short, from servers of every kind."""

import socket
from pathlib import Path

import numpy as np
import pytest

from swin_mm.datasets.prepare.prepare import PrepareError, fetch

CONTENT = np.random.default_rng(0).bytes(100_000)


@pytest.fixture
def target(server, tmp_path) -> Path:
    server.files["a.zip"] = CONTENT
    return tmp_path / "a.zip"


def get(server, target: Path) -> bytes:
    fetch(f"{server.url}/a.zip", target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # nothing is left over
    return target.read_bytes()


def refuse(server, target: Path, *words: str) -> None:
    with pytest.raises(PrepareError) as error:
        fetch(f"{server.url}/a.zip", target)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_plain(server, target):
    assert get(server, target) == CONTENT
    assert server.requests == [None]


def test_cut_short_goes_on_by_itself(server, target):
    server.cuts = [30_000, 50_000]
    assert get(server, target) == CONTENT
    assert server.requests == [None, "bytes=30000-", "bytes=80000-"]


def test_the_next_run_goes_on(server, target):
    server.cuts = [30_000, 0, 0, 0]
    refuse(
        server,
        target,
        "cannot fetch http://127.0.0.1",
        "run this again to go on from what has come",
    )
    assert not target.exists()
    server.requests.clear()
    assert get(server, target) == CONTENT
    assert server.requests == ["bytes=30000-"]


def test_server_without_ranges_starts_anew(server, target):
    server.ranges, server.cuts = False, [30_000]
    assert get(server, target) == CONTENT
    assert server.requests == [None, "bytes=30000-"]


def test_part_that_is_whole_already(server, target):
    Path(f"{target}.part").write_bytes(CONTENT)
    assert get(server, target) == CONTENT
    assert server.requests == ["bytes=100000-"]


def test_length_that_the_server_does_not_tell(server, target):
    server.lengths = False
    assert get(server, target) == CONTENT


def test_passing_trouble_of_the_server(server, target):
    server.failures = [503, 500]
    assert get(server, target) == CONTENT


def test_lasting_trouble_of_the_server(server, target):
    server.failures = [503] * 4
    refuse(server, target, "Error 503", "run this again")
    assert len(server.requests) == 4


def test_file_that_is_not_there(server, target):
    del server.files["a.zip"]
    refuse(
        server,
        target,
        f"{server.url}/a.zip: HTTP Error 404",
        "--mirror URL",
        f"by hand to {target}",
    )
    assert len(server.requests) == 1
    assert not list(target.parent.iterdir())


def test_no_server(server, target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with pytest.raises(PrepareError, match=f"cannot fetch {url}: .*refused>; run this again"):
            fetch(url, target)
