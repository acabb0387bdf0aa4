"""The config in a checkpoint is data: nothing of it runs."""

import pytest
import torch
from mmengine.config import Config

from swin_mm.checkpoint.config_text import parse_config_text


def test_what_mmengine_writes_is_read(tmp_path):
    cfg = Config(
        dict(
            model=dict(type="A", sizes=[(1, 2), (3.5, -4)], text='it\'s "so"', none=None),
            lr=1e-4,
            big=float("inf"),
            steps=[dict(begin=0), dict(end=True)],
            odd={"a-b": 1, 3: "x"},
        )
    )
    found = Config(parse_config_text(cfg.pretty_text))
    assert found.to_dict() == cfg.to_dict()


CODE = {
    "import": "import os",
    "call": "x = __import__('os').system('touch {path}')",
    "open": "x = open('{path}', 'w')",
    "format": "x = f\"{{open('{path}', 'w')}}\"",
    "comprehension": "x = [open('{path}', 'w') for _ in range(1)]",
    "walrus": "x = (y := open('{path}', 'w'))",
    "lambda": "x = (lambda: open('{path}', 'w'))()",
    "expression": "open('{path}', 'w')",
    "class": "class A: x = open('{path}', 'w')",
    "in dict": "x = dict(a=[1, dict(b=open('{path}', 'w'))])",
    "star": "x = dict(**open('{path}', 'w'))",
    "attribute": "x.y = 1",
    "not python": "x = (",
    "deep": "x = " + "[" * 5000 + "]" * 5000,
    "null": "x = 1\0",
}


@pytest.mark.parametrize("text", CODE.values(), ids=list(CODE))
def test_code_is_refused_and_does_not_run(text, tmp_path):
    path = tmp_path / "touched"
    text = text.replace("{path}", str(path)).replace("{{", "{").replace("}}", "}")
    with pytest.raises(ValueError, match="the config in the checkpoint"):
        parse_config_text(text)
    assert not path.exists()


def test_text_of_other_kinds_is_refused():
    with pytest.raises(ValueError, match="no text of a usual size"):
        parse_config_text(torch.zeros(1))
