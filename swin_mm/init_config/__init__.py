"""Writes a config that trains a recipe on one's own data."""

from swin_mm.init_config.detection import init_detection
from swin_mm.init_config.errors import InitConfigError
from swin_mm.init_config.segmentation import init_segmentation

__all__ = ["InitConfigError", "init_detection", "init_segmentation"]
