"""What tests of the command share."""

import pytest
from mmengine.logging import MessageHub
from mmengine.visualization import Visualizer
from toy_task import write_toy_config


@pytest.fixture
def fresh_mmengine(monkeypatch):
    """Forgets mmengine's global objects, which runs of the same second would share."""
    for manager in (MessageHub, Visualizer):
        monkeypatch.setattr(manager, "_instance_dict", type(manager._instance_dict)())
    # Set by a command; put back so that tests do not see each other.
    monkeypatch.setenv("LOCAL_RANK", "0")


@pytest.fixture
def toy(tmp_path, monkeypatch, fresh_mmengine):
    """The config of the toy task in the current folder, `extra` lines at its end."""
    monkeypatch.chdir(tmp_path)

    def write(extra=""):
        return str(write_toy_config(tmp_path, extra))

    return write
