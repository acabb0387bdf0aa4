"""Writes settings as the Python text of a config."""

import json
import textwrap
from typing import Any

WIDTH = 100
INDENT = 4


class Code(str):
    """Text that is written as it is: the name of a variable, or an expression."""


def quote(text: str) -> str:
    """Writes a string so that Python, and mmengine before it, read it back unchanged.

    mmengine replaces `{{...}}` in the text of a config, so two braces never stand together.
    """
    return json.dumps(text, ensure_ascii=False).replace("{{", "{\\x7b").replace("}}", "}\\x7d")


def render(value: Any, indent: int = 0, used: int = 0) -> str:
    """Writes a value on one line where it fits, else one item a line.

    `indent` are the spaces before the lines that follow the first, where `used` columns are taken.
    """
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    opening, closing = {dict: ("dict(", ")"), list: ("[", "]"), tuple: ("(", ")")}[type(value)]
    named = value.items() if isinstance(value, dict) else (("", item) for item in value)
    items = [(f"{name}=" if name else "", item) for name, item in named]
    inner = indent + INDENT
    texts = [name + render(item, inner, len(name) + 1) for name, item in items]
    end = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = f"{opening}{', '.join(texts)}{end}{closing}"
    if not texts or ("\n" not in line and len(line) + indent + used <= WIDTH):
        return line
    return "\n".join([opening, *(f"{' ' * inner}{t}," for t in texts), " " * indent + closing])


def assign(name: str, value: Any) -> str:
    """Writes `name = value`."""
    return f"{name} = {render(value, used=len(name) + 3)}"


def comment(text: str) -> str:
    """Writes comment lines that fit the width."""
    lines = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def in_docstring(text: str) -> str:
    """Escapes what would end a docstring or be replaced by mmengine."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("{{", "{ {")
