"""What the batched region proposal head alone leaves to mmdet's own methods, and why."""

from collections.abc import Sequence

from mmdet.models.dense_heads import RPNHead
from mmdet.models.losses import CrossEntropyLoss, L1Loss, SmoothL1Loss
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.models.refusals import refuse_nms, refuse_sampling


def refuse_losses(head: RPNHead, gt_instances: Sequence[InstanceData]) -> str | None:
    """Why the losses of a batch cannot be computed here, or `None`."""
    reason = _refuse_anchors(head) or refuse_sampling(head.assigner, head.sampler)
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
        return "ground truths are of a class of boxes"
    return None


def refuse_proposals(head: RPNHead, cfg: ConfigDict, rescale: bool, with_nms: bool) -> str | None:
    """Why the proposals of a batch cannot be made here, or `None`."""
    if rescale:
        return "boxes are wanted in coordinates of the original images"
    if not with_nms or cfg.max_per_img < 1:
        return "proposals are not to be suppressed, or not to be counted"
    return _refuse_anchors(head) or refuse_nms(cfg)


def _refuse_anchors(head: RPNHead) -> str | None:
    anchors, coder = head.prior_generator, head.bbox_coder
    if type(anchors) is not AnchorGenerator or anchors.use_box_type:
        return "anchors are not plain boxes on a grid"
    if type(coder) is not DeltaXYWHBBoxCoder or coder.use_box_type or coder.add_ctr_clamp:
        return "boxes are coded in another way than as plain shifts and stretches"
    return None
