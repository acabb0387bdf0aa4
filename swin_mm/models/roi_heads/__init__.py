"""RoI heads of mmdet that look at all images at once; mmdet is needed."""

from swin_mm.models.roi_heads.cascade import CascadeRoIHead
from swin_mm.models.roi_heads.hybrid import HybridTaskCascadeRoIHead
from swin_mm.models.roi_heads.standard import StandardRoIHead

__all__ = ["CascadeRoIHead", "HybridTaskCascadeRoIHead", "StandardRoIHead"]
