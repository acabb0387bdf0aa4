"""Settings written as Python read back as they were, also through mmengine."""

import pytest
from mmengine.config import Config

from swin_mm.init_config.text import Code, assign, comment, in_docstring, quote, render

ODD = ['it\'s "odd", yes', "Größe", "a{{b}}", "{{ fileDirname }}", "{{$HOME:x}}", "back\\slash\n"]


@pytest.mark.parametrize("name", ODD)
def test_names_survive_mmengine(tmp_path, name):
    path = tmp_path / "config.py"
    path.write_text(f'"""{in_docstring(name)}\n"""\n{assign("classes", (name, "b"))}\n')
    assert Config.fromfile(path).classes == (name, "b")


def test_values_read_back():
    value = dict(a=[1, 2.5, None, True], b=("x",), c=dict(), d=[dict(e="f" * 60)] * 3)
    text = render(value)
    assert eval(text) == value
    assert "\n" in text and max(map(len, text.splitlines())) <= 100


def test_code_stands_as_it_is():
    assert assign("model", dict(num_classes=Code("len(classes)"))) == (
        "model = dict(num_classes=len(classes))"
    )


def test_comments_fit_the_width():
    lines = comment("word " * 60).splitlines()
    assert len(lines) == 4 and all(line.startswith("# word") for line in lines)
    assert quote("a") == '"a"'
