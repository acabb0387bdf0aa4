"""Settings for which the batched heads call mmdet's own methods instead.

Each function returns the reason, or `None` where the batched computation gives mmdet's results.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss, SmoothL1Loss
from mmdet.models.roi_heads.bbox_heads import (
    BBoxHead,
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from mmdet.models.roi_heads.mask_heads import FCNMaskHead, HTCMaskHead
from mmdet.models.task_modules import (
    AnchorGenerator,
    BboxOverlaps2D,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
)
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.structures import InstanceData
from torch import Tensor, nn

# Subclasses change what these do, so they do not count.
BOX_HEADS = (BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead)


def log_fallback(where: str, reason: str) -> None:
    """Logs, at debug level, that mmdet's own method runs and why."""
    print_log(f"{where} by mmdet: {reason}", "current", level=logging.DEBUG)


def replaced(head: nn.Module, *methods: str) -> str | None:
    """Which of mmdet's methods, not called here, a subclass of a batched head has of its own."""
    own = next(base for base in type(head).__mro__ if base.__module__.startswith("swin_mm."))
    for method in methods:
        if getattr(type(head), method) is not getattr(own, method):
            return f"{type(head).__name__} has its own {method}"
    return None


def box_head(head: BBoxHead) -> str | None:
    """Why a box head's losses and boxes cannot be computed here, or `None`."""
    if type(head) not in BOX_HEADS:
        return f"the box head is a {type(head).__name__}"
    if not (head.with_cls and head.with_reg):
        return "the box head does not predict both classes and boxes"
    if head.custom_cls_channels or head.custom_activation:
        return f"the scores are those of {type(head.loss_cls).__name__}"
    coder = head.bbox_coder
    if type(coder) is not DeltaXYWHBBoxCoder or coder.use_box_type or coder.add_ctr_clamp:
        return "the boxes are not coded by a plain DeltaXYWHBBoxCoder"
    return None


def sampling(assigner: Any, sampler: Any) -> str | None:
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


def mask_head(head: nn.Module) -> str | None:
    """Why a mask head's losses and masks cannot be computed here, or `None`."""
    if type(head) in (FCNMaskHead, HTCMaskHead):
        return None
    return f"the mask head is a {type(head).__name__}"


def pasting(heads: Iterable[nn.Module], boxes: Tensor) -> str | None:
    """Why the masks of detected boxes cannot be put into images here, or `None`."""
    if not len(boxes):
        return "there are no boxes"
    return next(filter(None, map(mask_head, heads)), None)


def samples(samples: list[DetDataSample]) -> str | None:
    """Why the ground truths of a batch cannot be used here, or `None`."""
    if all(isinstance(sample.gt_instances.bboxes, Tensor) for sample in samples):
        return None
    return "ground truths are not plain tensors"


def nms(cfg: ConfigDict | None) -> str | None:
    """Why boxes cannot be suppressed here as a test setting asks for, or `None`."""
    if cfg is None:
        return "boxes of several views are merged before NMS"
    if cfg.nms is None:
        return "NMS is off"
    if cfg.nms.get("type", "nms") != "nms" or not {*cfg.nms} <= {"type", "iou_threshold"}:
        return f"NMS is {dict(cfg.nms)}"
    return None


def rpn_losses(head: RPNHead, gt_instances: Sequence[InstanceData]) -> str | None:
    """Why the losses of a region proposal head cannot be computed here, or `None`."""
    reason = (
        replaced(head, "get_anchors", "get_targets", "_get_targets_single", "loss_by_feat_single")
        or anchors(head)
        or sampling(head.assigner, head.sampler)
    )
    if reason is not None:
        return reason
    if head.sampler.add_gt_as_proposals:
        return "ground truths are sampled as anchors"
    if head.reg_decoded_bbox:
        return "the regression loss is that of decoded boxes"
    scores, boxes = head.loss_cls, head.loss_bbox
    if type(scores) is not CrossEntropyLoss or not scores.use_sigmoid:
        return "the loss of scores is not binary cross entropy"
    if scores.ignore_index is not None or scores.class_weight is not None:
        return "the loss of scores has an ignored or a weighted class"
    if type(boxes) not in (L1Loss, SmoothL1Loss):
        return f"the loss of boxes is {type(boxes).__name__}"
    if scores.reduction != "mean" or boxes.reduction != "mean":
        return "a loss is not a mean"
    if not all(type(instances.bboxes) is Tensor for instances in gt_instances):
        return "ground truths are not plain tensors"
    return None


def rpn_proposals(head: RPNHead, cfg: ConfigDict, rescale: bool, with_nms: bool) -> str | None:
    """Why the proposals of a region proposal head cannot be made here, or `None`."""
    if rescale:
        return "boxes are requested in coordinates of the original images"
    if not with_nms or cfg.max_per_img < 1:
        return "NMS is off, or the number of proposals is not limited"
    own = replaced(head, "_predict_by_feat_single", "_bbox_post_process")
    return own or anchors(head) or nms(cfg)


def anchors(head: RPNHead) -> str | None:
    """Why the anchors and boxes of a region proposal head cannot be computed here, or `None`."""
    generator, coder = head.prior_generator, head.bbox_coder
    if type(generator) is not AnchorGenerator or generator.use_box_type:
        return "anchors are not plain boxes on a grid"
    if type(coder) is not DeltaXYWHBBoxCoder or coder.use_box_type or coder.add_ctr_clamp:
        return "boxes are not coded by a plain DeltaXYWHBBoxCoder"
    return None
