"""Losses, refinement and detections of mmdet's box heads, for all images at once."""

from collections.abc import Sequence

import torch
from mmdet.models.losses import accuracy
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.heads.ops.assign import pad_boxes
from swin_mm.heads.ops.deltas import decode_deltas, encode_deltas
from swin_mm.heads.ops.nms import move_groups_apart, nms_sorted
from swin_mm.heads.ops.transfer import image_sizes, to_device
from swin_mm.heads.roi.samples import RoISamples


def image_limits(metas: Sequence[dict], like: Tensor) -> Tensor:
    """Widths and heights of images, `(B, 2)`, in pixels."""
    return to_device(image_sizes(metas).to(like.dtype), like.device)


def box_labels(head: BBoxHead, samples: RoISamples) -> Tensor:
    """The class of every box, `(S,)`; that after the last one is the background's."""
    labels = samples.gt_labels.new_full((len(samples.rois),), head.num_classes)
    return labels.index_copy(0, samples.positive, samples.gt_labels)


def box_losses(
    head: BBoxHead, scores: Tensor, deltas: Tensor, samples: RoISamples, cfg: ConfigDict
) -> dict[str, Tensor]:
    """Losses of a box head: what its `loss_and_target` gives, without waiting for the device.

    It predicts `scores`, `(S, C + 1)`, and `deltas`, `(S, 4)` or `(S, C * 4)` for each class apart.
    `cfg` is the `train_cfg` of the stage.
    """
    losses: dict[str, Tensor] = {}
    labels = box_labels(head, samples)
    if len(labels):
        weights = torch.ones_like(labels, dtype=torch.float32)
        if cfg.pos_weight > 0:
            weights = weights.index_fill(0, samples.positive, cfg.pos_weight)
        loss = head.loss_cls(scores, labels, weights, avg_factor=float(len(labels)))
        losses |= loss if isinstance(loss, dict) else dict(loss_cls=loss)
        losses["acc"] = accuracy(scores, labels)
    if not len(samples.positive):
        losses["loss_bbox"] = deltas[:0].sum()
        return losses
    boxes = samples.rois[samples.positive, 1:]
    deltas = _of_class(head, deltas, samples.positive, samples.gt_labels)  # (P, 4)
    coder = head.bbox_coder
    if head.reg_decoded_bbox:
        predicted = decode_deltas(boxes, deltas, coder.means, coder.stds)
        targets = samples.gt_boxes
    else:
        predicted = deltas
        targets = encode_deltas(boxes, samples.gt_boxes, coder.means, coder.stds)
    # mmdet gives weights of one, which its losses look at on the host.
    losses["loss_bbox"] = head.loss_bbox(predicted, targets, avg_factor=len(labels))
    return losses


def refine_boxes(
    head: BBoxHead, rois: Tensor, deltas: Tensor, labels: Tensor, limits: Tensor
) -> Tensor:
    """Boxes `(R, 4)` as the next stage of a cascade gets them, by the deltas of classes `(R,)`."""
    rows = torch.arange(len(deltas), device=deltas.device)
    return _decode(head, rois, _of_class(head, deltas, rows, labels), limits)


def _of_class(head: BBoxHead, deltas: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
    """The deltas `(N, 4)` of rows, each for one class."""
    if head.reg_class_agnostic:
        return deltas[rows]
    return deltas.unflatten(1, (head.num_classes, 4))[rows, labels]


def _decode(head: BBoxHead, rois: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
    """Boxes `(N, 4)`, clipped to their images if the head's coder does that."""
    coder = head.bbox_coder
    own_limits = limits[rois[:, 0].long()] if coder.clip_border else None
    return decode_deltas(rois[:, 1:], deltas, coder.means, coder.stds, own_limits)


def detect(
    head: BBoxHead,
    rois: Tensor,
    scores: Tensor,
    deltas: Tensor,
    metas: Sequence[dict],
    cfg: ConfigDict,
    rescale: bool,
) -> list[InstanceData]:
    """Detections of each image: what the head's `predict_by_feat` gives.

    Only boxes whose score counts are decoded. It waits for the device twice, and as often as NMS
    does. `rois` are `(R, 5)`, image index, then x1, y1, x2, y2 in pixels; `scores` `(R, C + 1)`,
    before softmax; `deltas` `(R, 4)` or `(R, C * 4)`. With `rescale`, boxes are in coordinates of
    the original images.
    """
    scores = scores.softmax(dim=-1)[:, :-1]
    is_candidate = scores > cfg.score_thr
    image = rois[:, 0].long()
    counts = image.new_zeros(len(metas)).index_add_(0, image, is_candidate.sum(1)).tolist()
    row, label = torch.nonzero_static(is_candidate, size=sum(counts)).unbind(1)  # (K,) each
    rois, image, score = rois[row], image[row], scores[row, label]
    boxes = _decode(head, rois, _of_class(head, deltas, row, label), image_limits(metas, rois))
    if rescale:
        factors = torch.tensor([[1 / float(s) for s in meta["scale_factor"]] for meta in metas])
        boxes = boxes * to_device(factors.to(boxes.dtype), boxes.device)[image].repeat(1, 2)
    # By image, and in it by falling score; equal ones stay in mmdet's order.
    order = score.argsort(descending=True, stable=True)
    order = order[image[order].argsort(stable=True)]
    boxes, present = pad_boxes(boxes[order].split(counts))  # (B, N, 4)
    score, _ = pad_boxes(score[order].split(counts))
    label, _ = pad_boxes(label[order].split(counts))
    apart = move_groups_apart(boxes, label, present) if boxes.numel() else boxes
    keep = nms_sorted(apart, present, cfg.nms.iou_threshold)  # (B, N)
    best = keep.int().argsort(dim=1, descending=True, stable=True)
    counts = keep.sum(1).tolist()
    if cfg.max_per_img > 0:
        counts = [min(count, cfg.max_per_img) for count in counts]
    kept = [(i, best[i, :count]) for i, count in enumerate(counts)]
    return [InstanceData(bboxes=boxes[k], scores=score[k], labels=label[k]) for k in kept]
