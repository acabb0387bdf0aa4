"""Dense heads that look at all images at once: of mmdet, and RepPoints V2; mmdet is needed."""

from swin_mm.heads.dense.mask_reppoints_v2_head import MaskRepPointsV2Head
from swin_mm.heads.dense.reppoints_v2_head import RepPointsV2Head
from swin_mm.heads.dense.rpn_head import RPNHead

__all__ = ["MaskRepPointsV2Head", "RPNHead", "RepPointsV2Head"]
