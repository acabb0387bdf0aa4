"""Modules with parameters, registered under the scope `swin_mm`."""

from swin_mm.models.backbones import SwinTransformer
from swin_mm.models.necks import FPN

__all__ = ["FPN", "SwinTransformer"]
