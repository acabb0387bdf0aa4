"""Consoles and tables of the commands."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from swin_mm.text import printable


class PlainConsole(Console):
    """A rich console that prints all text as it is: no markup, no emoji codes, no escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n"), **options)


def make_table(
    rows: Iterable[Sequence[RenderableType]],
    columns: Sequence[str] = ("", ""),
    title: str | None = None,
    numbers: bool = False,
) -> Table:
    """Makes a table for a terminal.

    Args:
        rows: A text for each column.
        columns: Headings; none are shown where all are empty.
        title: Above the table.
        numbers: Whether all columns but the first hold numbers, which stand to the right.
    """
    table = Table(title=title, title_justify="left", box=box.ROUNDED, show_header=any(columns))
    for index, name in enumerate(columns):
        justify: Any = "right" if numbers and index else "left"
        is_name = not index and not any(columns)
        table.add_column(name, overflow="fold", justify=justify, no_wrap=is_name)
    for row in rows:
        table.add_row(*row)
    return table
