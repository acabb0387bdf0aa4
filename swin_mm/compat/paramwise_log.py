"""Keeps the options of single parameters out of the log.

For mmengine 0.10, whose `DefaultOptimWrapperConstructor` logs, for a config with `paramwise_cfg`,
several lines for each of a model's parameters: some 800 for a Mask R-CNN on Swin-T, between the
start table and the first step; and one, as a warning, for each that is frozen, which of a backbone
with LoRA are nearly all. Here they go to the debug level.
"""

import logging

from swin_mm.compat.module_finder import Patch

PREFIX = "paramwise_options -- "
OF_FROZEN = " is skipped since its requires_grad=False"


def print_log(
    msg: str, logger: logging.Logger | str | None = None, level: int = logging.INFO
) -> None:
    """Logs as mmengine's function of this name, lines of single parameters at debug level."""
    from mmengine.logging import print_log

    is_of_one = str(msg).startswith(PREFIX) or str(msg).endswith(OF_FROZEN)
    print_log(msg, logger, logging.DEBUG if is_of_one else level)


PATCH = Patch(
    "paramwise_log",
    "mmengine logs a line for every option of every parameter",
    {"mmengine.optim.optimizer.default_constructor": lambda m: vars(m).update(print_log=print_log)},
)
