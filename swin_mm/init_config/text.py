"""Writes settings as the Python text of a config."""

import json
import textwrap
from typing import Any

WIDTH = 100
INDENT = 4


class Code(str):
    """Text that stands in a config as it is: the name of a variable, or an expression."""


def quote(text: str) -> str:
    """Writes a string so that Python, and mmengine before it, read it as it is.

    mmengine replaces `{{...}}` in the text of a config, so two braces never stand together.
    """
    return json.dumps(text, ensure_ascii=False).replace("{{", "{\\x7b").replace("}}", "}\\x7d")


def render(value: Any, indent: int = 0, used: int = 0) -> str:
    """Writes a value: on one line where it fits, else an item a line, as ruff would.

    Args:
        value: Dicts with names for keys, lists, tuples, `Code`, strings, numbers, None.
        indent: Spaces before the lines that follow the first.
        used: Columns of the first line that are taken, and of its end.
    """
    line = _render_on_a_line(value)
    if len(line) + indent + used <= WIDTH or not isinstance(value, dict | list | tuple):
        return line
    if not value:
        return line
    inner = " " * (indent + INDENT)
    opening, closing = {dict: ("dict(", ")"), list: ("[", "]"), tuple: ("(", ")")}[type(value)]
    if isinstance(value, dict):
        items = [(f"{key}=", item) for key, item in value.items()]
    else:
        items = [("", item) for item in value]
    lines = [
        f"{inner}{name}{render(item, indent + INDENT, len(name) + 1)}," for name, item in items
    ]
    return "\n".join([opening, *lines, " " * indent + closing])


def _render_on_a_line(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, dict):
        return f"dict({', '.join(f'{k}={_render_on_a_line(v)}' for k, v in value.items())})"
    if isinstance(value, list | tuple):
        items = ", ".join(map(_render_on_a_line, value))
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    return repr(value)


def assign(name: str, value: Any) -> str:
    """Writes `name = value`."""
    return f"{name} = {render(value, used=len(name) + 3)}"


def comment(text: str) -> str:
    """Writes comment lines that fit the width."""
    lines = textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines)


def docstring(first: str, *paragraphs: str) -> str:
    """Writes the opening docstring; lines are not broken within names and paths."""
    parts = [first, *(textwrap.fill(p, WIDTH, break_long_words=False) for p in paragraphs)]
    text = "\n\n".join(parts).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{text.replace("{{", "{ {")}\n"""'


def base_lines(recipe: str, preset: str, runtime: str) -> str:
    """Writes what the config builds on.

    Args:
        recipe: Name of the recipe, or of the small preset's file with a model.
        preset: `full` or `small`.
        runtime: The file of hooks and logging that goes with a model of the small preset.
    """
    names = [f"{recipe}.py"]
    if preset == "small":
        names = [f"_base_/{runtime}", f"_base_/models/{recipe}"]
    calls = [Code(f'__import__("swin_mm").base_config({quote(name)})') for name in names]
    reason = comment("mmengine reads the bases before any import: so they are found from anywhere.")
    return f"{reason}\n{assign('_base_', calls if len(calls) > 1 else calls[0])}"
