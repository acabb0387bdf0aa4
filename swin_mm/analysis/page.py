"""An analysis as one HTML file that needs no other, or as pictures and numbers in a folder."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

TEMPLATE = """
{%- macro table(heads, rows) %}
<table>{% if heads %}<tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>{% endif %}
{% for row in rows %}<tr>{% for value in row %}<td>{{ value | cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endmacro -%}
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ analysis.title }}</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1080px; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left } th { border-bottom: 2px solid #888 }
img { max-width: 100% } p.note, figcaption { color: #555 } figure { margin: 0 0 1em }
div.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 1em }
</style></head>
<body>
<h1>{{ analysis.title }}</h1>
{{ table((), analysis.facts.items()) }}
{%- for section in analysis.sections %}
<h2>{{ section.title }}</h2>
<p class="note">{{ section.note }}</p>
{% if section.picture %}<img alt="{{ section.title }}" src="{{ section.picture | uri }}">{% endif %}
{% if section.rows %}{{ table(section.rows[0], section.rows | values) }}{% endif %}
{% if section.images %}<div class="grid">
{% for name, picture in section.images -%}
<figure><img alt="{{ name }}" src="{{ picture | uri }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}</div>{% endif %}
{%- endfor %}
</body></html>
"""


@dataclass(frozen=True)
class Section:
    """A part of an analysis."""

    name: str  # of its picture's file and in JSON
    title: str  # its heading
    note: str  # how to read it
    # Its table, with the same keys in each row; floats are shares, NaN shows as a dash.
    rows: Sequence[dict[str, Any]] | None = None
    picture: bytes | None = None  # PNG
    images: Sequence[tuple[str, bytes]] = ()  # name and PNG of each image that it shows


@dataclass(frozen=True)
class Analysis:
    """Numbers of a set of predictions as a whole (`facts`), and its sections."""

    title: str
    facts: dict[str, Any]
    sections: Sequence[Section]


def write_page(analysis: Analysis, path: Path) -> None:
    """Writes one HTML file with the pictures in it; the folder is made if absent."""
    environment = Environment(autoescape=True)
    environment.filters.update(
        cell=format_value,
        uri=lambda picture: f"data:image/png;base64,{base64.b64encode(picture).decode()}",
        values=lambda rows: [row.values() for row in rows],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    page = environment.from_string(TEMPLATE).render(analysis=analysis)
    path.write_text(page, encoding="utf-8")


def write_folder(analysis: Analysis, folder: Path) -> None:
    """Writes a PNG for each picture and `analysis.json` with the numbers, null for NaN.

    Images of a section are `NAME_1.png` and so on, in the order of its table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, Any] = {"title": analysis.title, **_without_nan(analysis.facts)}
    for section in analysis.sections:
        if section.picture:
            (folder / f"{section.name}.png").write_bytes(section.picture)
        for number, (_, picture) in enumerate(section.images, start=1):
            (folder / f"{section.name}_{number}.png").write_bytes(picture)
        if section.rows is not None:
            numbers[section.name] = [_without_nan(row) for row in section.rows]
    (folder / "analysis.json").write_text(json.dumps(numbers, indent=2) + "\n", "utf-8")


def format_value(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
