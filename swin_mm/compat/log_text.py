"""Escapes control characters in what mmengine 0.10 logs, and keeps single parameters out of it.

- Names of files, classes and weights are printed as they are: an escape sequence in one of them
  moves the cursor of a terminal, or changes its title.
- `DefaultOptimWrapperConstructor` logs several lines for each of a model's parameters, some 800 for
  a Mask R-CNN on Swin-T, and one, as a warning, for each that is frozen, which of a backbone with
  LoRA are nearly all. Here they go to the debug level.
"""

import builtins
import logging
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once
from swin_mm.text import printable

PREFIX = "paramwise_options -- "
OF_FROZEN = " is skipped since its requires_grad=False"
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


def print_log(
    msg: str, logger: logging.Logger | str | None = None, level: int = logging.INFO
) -> None:
    """Logs as mmengine's function of this name, lines of single parameters at debug level."""
    from mmengine.logging import print_log

    is_of_one = str(msg).startswith(PREFIX) or str(msg).endswith(OF_FROZEN)
    print_log(msg, logger, logging.DEBUG if is_of_one else level)


PATCHES = (
    Patch(
        "log_text",
        "mmengine writes escape sequences from files to the terminal",
        {"mmengine.logging.logger": _patch},
    ),
    Patch(
        "paramwise_log",
        "mmengine logs a line for every option of every parameter",
        {
            "mmengine.optim.optimizer.default_constructor": lambda module: vars(module).update(
                print_log=print_log
            )
        },
    ),
)
