"""RoI heads of mmdet that look at all images at once; mmdet is needed."""

from swin_mm.heads.roi.cascade import CascadeRoIHead
from swin_mm.heads.roi.hybrid import HybridTaskCascadeRoIHead
from swin_mm.heads.roi.standard import StandardRoIHead

__all__ = ["CascadeRoIHead", "HybridTaskCascadeRoIHead", "StandardRoIHead"]
