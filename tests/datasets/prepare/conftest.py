import pytest
from archive_server import serve_archives

from swin_mm.datasets.prepare import prepare


@pytest.fixture
def server(monkeypatch):
    """A local server of archives; downloads do not pause before they try again."""
    monkeypatch.setattr(prepare, "PAUSES", (0, 0, 0))
    with serve_archives() as server:
        yield server
