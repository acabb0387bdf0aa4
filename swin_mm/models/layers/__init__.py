"""Modules that hold parameters and call the operators."""

from swin_mm.models.layers.attention import WindowAttention
from swin_mm.models.layers.block import SwinBlock
from swin_mm.models.layers.patch import PatchEmbed, PatchMerging

__all__ = ["PatchEmbed", "PatchMerging", "SwinBlock", "WindowAttention"]
