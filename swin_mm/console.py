"""Text from users and files on a terminal: shown as it is written, and never acted on."""

from typing import Any

from rich.console import Console
from rich.text import Text


def printable(text: str, keep: str = "") -> str:
    """Escapes what a terminal would act on, or could not show.

    Args:
        text: Any text.
        keep: Characters that stay, such as line ends.
    """
    return "".join(
        char
        if char.isprintable() or char in keep
        else char.encode("unicode_escape", "replace").decode()
        for char in text
    )


class PlainConsole(Console):
    """A rich console that prints all text as it is: no markup, no emoji codes, no escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text, keep="\n"), **options)
