"""Metrics of mmdet that cost less, with the same numbers."""

from swin_mm.evaluation.coco_metric import CocoMetric

__all__ = ["CocoMetric"]
