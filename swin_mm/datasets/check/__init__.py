"""The check of a config's data before training or testing starts."""

from swin_mm.datasets.check.config import check_config
from swin_mm.datasets.check.summary import DatasetError, DatasetSummary, SplitSummary

__all__ = ["DatasetError", "DatasetSummary", "SplitSummary", "check_config"]
