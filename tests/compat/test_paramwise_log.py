"""The log of parameter options."""

import inspect
import logging

import pytest
from mmengine.logging import MMLogger, print_log
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import default_constructor
from torch import nn

from swin_mm.compat import log_text

SETTINGS = dict(
    optimizer=dict(type="SGD", lr=0.1, weight_decay=0.01),
    # `bypass_duplicate` warns of the parameter that occurs twice.
    paramwise_cfg=dict(custom_keys={"0": dict(decay_mult=0.0)}, bypass_duplicate=True),
)


def build(caplog):
    """Returns the messages at info level and above, and all."""
    logger = MMLogger.get_instance("paramwise", logger_name="paramwise", log_level="DEBUG")
    logger.addHandler(caplog.handler)
    shared, frozen = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    build_optim_wrapper(nn.Sequential(shared, nn.ModuleList([shared]), frozen), SETTINGS)
    records = caplog.records
    return [r.getMessage() for r in records if r.levelno >= logging.INFO], len(records)


def test_mmengine_still_logs_them(caplog, monkeypatch):
    """Fails when the repair is no longer needed."""
    monkeypatch.setattr(default_constructor, "print_log", print_log)
    shown, _ = build(caplog)
    assert sum(message.startswith(log_text.PREFIX) for message in shown) > 2
    assert sum(message.endswith(log_text.OF_FROZEN) for message in shown) == 2
    assert log_text.PREFIX in inspect.getsource(default_constructor)


def test_they_are_at_debug_level_and_others_stay(caplog):
    shown, count = build(caplog)
    assert len(shown) == 2 and all("duplicate" in message for message in shown)
    assert count > len(shown)


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_other_levels_are_kept(caplog, level):
    logger = MMLogger.get_instance("levels", logger_name="levels")
    logger.addHandler(caplog.handler)
    log_text.print_log("text", logger, level)
    assert [record.levelno for record in caplog.records] == [level]
