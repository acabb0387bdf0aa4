"""Modules with parameters, registered under the scope `swin_mm`."""

from swin_mm.models.averaged_model import ExponentialMovingAverage
from swin_mm.models.backbones import SwinTransformer, SwinTransformerV2
from swin_mm.models.necks import FPN, BiFPN

__all__ = ["FPN", "BiFPN", "ExponentialMovingAverage", "SwinTransformer", "SwinTransformerV2"]
