"""The command that serves the page."""

import sys
from types import SimpleNamespace

import pytest

from swin_mm.cli.main import run_command


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("swin_mm.cli.demo.find_spec", lambda name: None)
    assert run_command("demo", ["a.py", "b.pth"]) == 1
    assert "swin-mm demo needs gradio: pip install 'swin-mm[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize("checkpoint", [None, "b.pth"])
def test_the_model_is_loaded_as_by_load(monkeypatch, checkpoint):
    calls = []
    served = SimpleNamespace(
        build_page=lambda model, title: (model, title),
        serve_page=lambda *arguments: calls.append(arguments),
    )
    monkeypatch.setattr("swin_mm.cli.demo.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "swin_mm.inference.page", served)
    monkeypatch.setattr("swin_mm.inference.model.load", lambda *arguments: arguments)
    words = ["x/a.py", *([checkpoint] if checkpoint else []), "--port", "8000"]
    assert run_command("demo", words) == 0
    assert calls == [((("x/a.py", checkpoint, None, {}, False), "swin_mm: a.py"), 8000)]
