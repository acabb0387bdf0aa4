"""The check of a config's data before training or testing starts."""

from swin_mm.datasets.check.config import Findings, check_config, inspect_config
from swin_mm.datasets.check.summary import DatasetError, DatasetSummary, SplitSummary

__all__ = [
    "DatasetError",
    "DatasetSummary",
    "Findings",
    "SplitSummary",
    "check_config",
    "inspect_config",
]
