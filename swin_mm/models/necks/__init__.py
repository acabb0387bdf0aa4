"""Necks, registered in `swin_mm.registry.MODELS`."""

from swin_mm.models.necks.bifpn import BiFPN
from swin_mm.models.necks.fpn import FPN

__all__ = ["FPN", "BiFPN"]
