"""Puts public data sets where configs look for them."""

from swin_mm.datasets.prepare.prepare import PrepareError, prepare_dataset
from swin_mm.datasets.prepare.table import DATA_SETS, Archive, PublicData

__all__ = ["DATA_SETS", "Archive", "PrepareError", "PublicData", "prepare_dataset"]
