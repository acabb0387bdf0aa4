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


@pytest.fixture(autouse=True)
def pooling_of_gpus(monkeypatch):
    """Boxes are pooled as on a GPU, where the numbers are mmdet's to the bit; yields how not to."""
    with monkeypatch.context() as patch:
        patch.setattr(roi_align, "why_not_sparse", lambda maps, rois: "it is tested apart")
        yield patch.undo
