"""What tests of the command share."""

import pytest
from toy_task import write_toy_config


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The config of the toy task in the current folder, `extra` lines at its end."""
    monkeypatch.chdir(tmp_path)

    def write(extra=""):
        return str(write_toy_config(tmp_path, extra))

    return write
