"""Backbones, registered in `swin_mm.registry.MODELS`."""

from swin_mm.models.backbones.swin import SwinTransformer

__all__ = ["SwinTransformer"]
