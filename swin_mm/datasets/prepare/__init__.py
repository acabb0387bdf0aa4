"""Puts public data sets where configs look for them."""

from swin_mm.datasets.prepare.archives import PrepareError
from swin_mm.datasets.prepare.prepare import expected, prepare_dataset
from swin_mm.datasets.prepare.table import RECIPES, Archive, Recipe

__all__ = ["RECIPES", "Archive", "PrepareError", "Recipe", "expected", "prepare_dataset"]
