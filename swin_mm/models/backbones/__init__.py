"""Backbones, registered in `swin_mm.registry.MODELS`."""

from swin_mm.models.backbones.swin import SwinTransformer
from swin_mm.models.backbones.swin_v2 import SwinTransformerV2

__all__ = ["SwinTransformer", "SwinTransformerV2"]
