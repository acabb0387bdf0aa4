"""Writes a config that trains a recipe on one's own data."""

from swin_mm.init_config.detection import init_detection
from swin_mm.init_config.folder import init_folder
from swin_mm.init_config.masks import init_segmentation
from swin_mm.init_config.options import InitConfigError, Options

__all__ = ["InitConfigError", "Options", "init_detection", "init_folder", "init_segmentation"]
