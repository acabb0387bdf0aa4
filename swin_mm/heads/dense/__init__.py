"""Dense heads of mmdet that look at all images at once; mmdet is needed."""

from swin_mm.heads.dense.rpn_head import RPNHead

__all__ = ["RPNHead"]
