"""An analysis as one HTML file that needs no other, or as pictures and numbers in a folder."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1080px; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #888 }
img { max-width: 100% } p.note { color: #555 }
"""


@dataclass(frozen=True)
class Table:
    """Rows of a section.

    Attributes:
        heads: Names of the columns; those of `rows` in JSON too.
        rows: Values; floats are shares, and NaN is told as a dash.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Section:
    """A part of an analysis.

    Attributes:
        name: Of its picture's file and in JSON.
        title: Its heading.
        note: How to read it.
        table: Its numbers.
        picture: PNG.
    """

    name: str
    title: str
    note: str = ""
    table: Table | None = None
    picture: bytes | None = None


@dataclass(frozen=True)
class Analysis:
    """What is told of a set of predictions.

    Attributes:
        title: In a few words.
        facts: Numbers of the whole, by name.
        sections: The parts.
    """

    title: str
    facts: dict[str, Any]
    sections: list[Section] = field(default_factory=list)


def write_page(analysis: Analysis, path: Path) -> None:
    """Writes one HTML file with the pictures in it; the folder is made if absent."""
    parts = [f"<h1>{escape(analysis.title)}</h1>", _table(("", ""), list(analysis.facts.items()))]
    for section in analysis.sections:
        parts.append(f"<h2>{escape(section.title)}</h2>")
        if section.note:
            parts.append(f'<p class="note">{escape(section.note)}</p>')
        if section.picture:
            data = base64.b64encode(section.picture).decode()
            parts.append(f'<img alt="{escape(section.title)}" src="data:image/png;base64,{data}">')
        if section.table:
            parts.append(_table(section.table.heads, section.table.rows))
    body = "\n".join(parts)
    _write(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(analysis.title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n",
    )


def write_folder(analysis: Analysis, folder: Path) -> None:
    """Writes a PNG for each picture and `analysis.json` with the numbers."""
    numbers: dict[str, Any] = {"title": analysis.title, **analysis.facts}
    for section in analysis.sections:
        if section.picture:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{section.name}.png").write_bytes(section.picture)
        if section.table:
            numbers[section.name] = [
                dict(zip(section.table.heads, row, strict=True)) for row in section.table.rows
            ]
    _write(folder / "analysis.json", json.dumps(_plain(numbers), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    lines = ("".join(f"<td>{escape(format_value(value))}</td>" for value in row) for row in rows)
    return (
        f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
    )


def format_value(value: Any) -> str:
    """A value as a table has it."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _plain(value: Any) -> Any:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
