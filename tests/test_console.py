"""What users and files say is printed as it is written."""

from io import StringIO

import pytest
from rich.table import Table

from swin_mm.cli.check_dataset import describe_classes
from swin_mm.cli.main import main
from swin_mm.console import PlainConsole
from swin_mm.datasets.check import DatasetError, DatasetSummary, SplitSummary
from swin_mm.engine.hooks.start_table import _draw
from swin_mm.text import printable

# Markup, emoji codes and what a terminal acts on: colours, a title, the other direction of text.
HOSTILE = [
    "[red]",
    "[/]",
    "[link=a]b",
    ":cat:",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "\u202e",
]
SHOWN = [
    "[red]",
    "[/]",
    "[link=a]b",
    ":cat:",
    r"\x1b[31mred",
    r"\x1b]0;title\x07",
    r"\x9b2J",
    r"\u202e",
]


def render(thing) -> str:
    console = PlainConsole(file=StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(thing)
    return console.file.getvalue()


@pytest.mark.parametrize(("name", "shown"), list(zip(HOSTILE, SHOWN, strict=True)))
def test_all_places_show_names_as_they_are(name, shown):
    summary = SplitSummary(images=1, instances=3, per_class={name: 3})
    found = type("Found", (), {"summary": DatasetSummary((name,), {"train": summary})})
    table = Table(name, title=name)
    table.add_row(name)
    rows = [(name, summary.describe_classes())]
    for text in (render(describe_classes(found)), render(table), render(name), _draw(name, rows)):
        assert shown in text
        assert printable(text, keep="\n") == text
    assert str(DatasetError(f"{name}: wrong")) == f"{shown}: wrong"


def test_the_line_of_an_error_is_printable(capsys):
    assert main(["print-config", "\x1b[31mred.py"]) == 1
    assert r"\x1b[31mred.py" in capsys.readouterr().err


def test_letters_of_all_languages_stay():
    assert printable("Größe 犬 ß́ é") == "Größe 犬 ß́ é"
    assert printable("a\nb\tc", keep="\n") == "a\nb\\tc"
    assert printable("\ud800") == r"\ud800"
