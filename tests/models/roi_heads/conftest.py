"""What tests of the RoI heads share."""

import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def refusals():
    """Reasons for which mmdet's methods were called."""
    logger, records = MMLogger.get_current_instance(), []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    handler.addFilter(lambda record: " by mmdet: " in record.getMessage())
    level = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)
