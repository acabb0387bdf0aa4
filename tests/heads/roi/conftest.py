"""What tests of the RoI heads share."""

import logging

import pytest
from mmengine.logging import MMLogger

from swin_mm.heads.ops import roi_align


@pytest.fixture
def fallbacks():
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


@pytest.fixture
def pooling_of_gpus(monkeypatch):
    """Boxes are pooled as on a GPU, without the waits of a CPU's sparse product."""
    monkeypatch.setattr(roi_align, "why_not_sparse", lambda maps, rois: "as on a GPU")
