"""Escapes control characters in what mmengine logs.

For mmengine 0.10, whose log prints names of files, classes and weights as they are: an escape
sequence in one of them moves the cursor of a terminal, or changes its title.
"""

import builtins
import logging
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once
from swin_mm.console import printable

LAYOUT = "\n\t"  # characters that tables and configs in the log need


def print_text(text: object) -> None:
    """Prints as `print`, which mmengine's `print_log` calls where there is no logger."""
    builtins.print(printable(str(text), keep=LAYOUT))


def format_text(format_record: Any, formatter: Any, record: logging.LogRecord) -> str:
    """Formats the message alone: the level before it may be coloured."""
    text = printable(record.getMessage(), keep=LAYOUT)
    clean = logging.makeLogRecord({**vars(record), "msg": text, "args": ()})
    return format_record(formatter, clean)


def _patch(module: ModuleType) -> None:
    vars(module)["print"] = print_text
    wrap_once(module.MMFormatter, "format", format_text)


PATCH = Patch(
    "log_text",
    "mmengine writes escape sequences from files to the terminal",
    {"mmengine.logging.logger": _patch},
)
