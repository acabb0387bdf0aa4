"""What the batched heads of regions and boxes leave to mmdet's own methods, and why."""

import logging

from mmdet.models.roi_heads.bbox_heads import (
    BBoxHead,
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from mmdet.models.roi_heads.mask_heads import FCNMaskHead, HTCMaskHead
from mmdet.models.task_modules import (
    BboxOverlaps2D,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
)
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor, nn

# Subclasses change what these do, so they do not count.
BOX_HEADS = (BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)


def tell(where: str, reason: str) -> None:
    """Logs, at debug level, that mmdet's own method is at work and why."""
    print_log(f"{where} by mmdet: {reason}", "current", level=logging.DEBUG)


def refuse_box_head(head: nn.Module) -> str | None:
    """Why a box head's losses and boxes cannot be computed here, or `None`."""
    if type(head) not in BOX_HEADS:
        return f"the box head is a {type(head).__name__}"
    if not (head.with_cls and head.with_reg):
        return "the box head does not predict both classes and boxes"
    if head.custom_cls_channels or head.custom_activation:
        return f"the scores are those of {type(head.loss_cls).__name__}"
    coder = head.bbox_coder
    if type(coder) is not DeltaXYWHBBoxCoder or coder.use_box_type or coder.add_ctr_clamp:
        return "the boxes are coded in another way than as plain shifts and stretches"
    return None


def refuse_sampling(assigner: object, sampler: object) -> str | None:
    """Why proposals cannot be assigned and sampled here, or `None`."""
    if type(assigner) is not MaxIoUAssigner:
        return f"the assigner is a {type(assigner).__name__}"
    overlaps = assigner.iou_calculator
    if type(overlaps) is not BboxOverlaps2D or overlaps.dtype is not None:
        return "overlaps are not plain IoU"
    if assigner.ignore_iof_thr > 0 or assigner.perm_repeat_gt_cfg is not None:
        return "ground truths are ignored or permuted"
    if not isinstance(assigner.neg_iou_thr, float | tuple):
        return f"neg_iou_thr is {assigner.neg_iou_thr!r}"
    if type(sampler) is not RandomSampler:
        return f"the sampler is a {type(sampler).__name__}"
    return None


def refuse_mask_head(head: nn.Module) -> str | None:
    """Why a mask head's losses cannot be computed here, or `None`."""
    if type(head) in (FCNMaskHead, HTCMaskHead):
        return None
    return f"the mask head is a {type(head).__name__}"


def refuse_samples(samples: list[DetDataSample]) -> str | None:
    """Why the ground truths of a batch cannot be used here, or `None`."""
    if all(isinstance(sample.gt_instances.bboxes, Tensor) for sample in samples):
        return None
    return "ground truths are of a class of boxes"


def refuse_nms(cfg: ConfigDict | None) -> str | None:
    """Why boxes cannot be suppressed here as a test setting asks for, or `None`."""
    if cfg is None:
        return "boxes are to stay as they are, for views to be merged"
    if cfg.nms.get("type", "nms") != "nms" or not {*cfg.nms} <= {"type", "iou_threshold"}:
        return f"NMS is {dict(cfg.nms)}"
    return None
