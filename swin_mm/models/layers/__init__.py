"""Modules that hold parameters and call the operators."""

from swin_mm.models.layers.attention import WindowAttention
from swin_mm.models.layers.attention_v2 import CosineWindowAttention
from swin_mm.models.layers.block import SwinBlock, SwinBlockV2
from swin_mm.models.layers.patch import PatchEmbed, PatchMerging, PatchMergingV2

__all__ = [
    "CosineWindowAttention",
    "PatchEmbed",
    "PatchMerging",
    "PatchMergingV2",
    "SwinBlock",
    "SwinBlockV2",
    "WindowAttention",
]
