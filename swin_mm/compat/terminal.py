"""Keeps what mmengine and pycocotools print for developers off the terminal of a run.

mmengine 0.10 prints the environment, the whole config and all hooks before training, some 550
lines, and warns of its own classes; pycocotools 2.0 prints four lines for each file it opens. The
log file keeps what mmengine logs.
"""

import logging
import sys
import warnings
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.runner import Runner

FILE_ONLY = {"file_only": True}  # `extra` of a record that the terminal does not show
HIDDEN_FUNCTIONS = ("_log_env",)
HIDDEN_BEGINNINGS = (
    "Hooks will be executed in the following order",
    "Exp name: ",
    "Distributed training is not used, all SyncBatchNorm",
    "The prefix is not set in metric class",
)
HIDDEN_PARTS = ("will be deprecated in future",)
# What mmseg 1.2 warns of in its own code and its own configs.
HIDDEN_WARNINGS = (
    "``build_.*`` would be deprecated",
    "Default ``avg_non_ignore`` is False",
    "The draw is False",
)


class TerminalRunner(Runner):
    """mmengine's runner, whose log file has everything and whose terminal what a user needs.

    Attributes:
        start_from: Weights that a run starts from which finds nothing to resume, None for none.
    """

    # What mmengine's runner has.
    _load_from: str | None
    _resume: bool

    start_from: str | None = None

    def build_logger(self, *args: object, **kwargs: object) -> MMLogger:
        """mmengine's logger, with a filter on what goes to the terminal."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(is_for_terminal)
        return logger

    def load_or_resume(self) -> None:
        """As mmengine's, except where there is nothing to resume from: the run starts as any other.

        mmengine says "resumed from None" there, and forgets `load_from`.
        """
        pointer = Path(self.work_dir, "last_checkpoint")
        if self._load_from is None and self._resume and not pointer.is_file():
            if self.start_from is None:
                return
            self._resume, self._load_from = False, self.start_from
        super().load_or_resume()


def is_for_terminal(record: logging.LogRecord) -> bool:
    """Whether a record of the log is shown on the terminal."""
    text = str(record.msg)
    return not (
        getattr(record, "file_only", False)
        or record.funcName in HIDDEN_FUNCTIONS
        or text.startswith(HIDDEN_BEGINNINGS)
        or any(part in text for part in HIDDEN_PARTS)
    )


def silence_packages() -> None:
    """Has pycocotools read annotations, and mmseg build models, without a word."""
    import pycocotools.coco

    vars(pycocotools.coco)["print"] = lambda *_, **__: None
    for message in () if sys.warnoptions else HIDDEN_WARNINGS:
        warnings.filterwarnings("ignore", message)
