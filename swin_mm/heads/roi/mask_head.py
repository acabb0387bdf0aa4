"""Losses and predictions of mmdet's mask heads; targets are made on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.mask import BitmapMasks, PolygonMasks, mask_target
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.modules.utils import _pair
from torchvision.ops import roi_align

from swin_mm.heads import unsupported
from swin_mm.heads.ops.paste import paste_masks
from swin_mm.heads.ops.polygons import draw_polygons, pack_polygons
from swin_mm.heads.ops.transfer import to_device
from swin_mm.heads.roi.samples import GroundTruths, RoISamples

THRESHOLD = 0.5  # a cell belongs to the object if half of it is covered


def mask_losses(
    head: FCNMaskHead,
    predicted: Tensor,
    samples: RoISamples,
    truths: GroundTruths,
    cfg: ConfigDict,
) -> dict[str, Tensor]:
    """Loss of a mask head: what its `loss_and_target` gives.

    `predicted` are the masks of the positives before the sigmoid, `(P, C, h, w)`, and `cfg` is the
    `train_cfg` of the stage.
    """
    if not len(predicted):
        return dict(loss_mask=predicted.sum())
    targets = mask_targets(samples, truths, cfg)
    labels = torch.zeros_like(samples.gt_labels) if head.class_agnostic else samples.gt_labels
    return dict(loss_mask=head.loss_mask(predicted, targets, labels))


def mask_targets(samples: RoISamples, truths: GroundTruths, cfg: ConfigDict) -> Tensor:
    """What the masks of the positives should be, `(P, h, w)`, 0 or 1 (or between, if soft).

    Raises:
        ValueError: The ground truths have no masks.
    """
    if truths.masks is None:
        raise ValueError(
            "a mask head must have masks to learn, got boxes alone: set with_mask=True of "
            "LoadAnnotations, or choose a model without a mask head"
        )
    boxes = _clip(samples.rois[samples.positive], truths.masks)
    size = _pair(cfg.mask_size)
    is_soft = cfg.get("soft_mask_target", False)
    reason = _unsupported(truths.masks, is_soft)
    if reason is None and isinstance(truths.masks[0], PolygonMasks):
        objects = [polygons for masks in truths.masks for polygons in masks.masks]
        packed = pack_polygons(objects, boxes.device)
        return draw_polygons(packed, samples.gt, boxes, size).float()
    boxes, objects = boxes.split(samples.num_pos), samples.gt.split(samples.num_pos)
    objects = [gt - first for gt, first in zip(objects, truths.first, strict=True)]
    if reason is not None:
        unsupported.log_fallback("mask targets", reason)
        return mask_target(boxes, objects, truths.masks, cfg)
    return torch.cat(
        [
            crop_bitmaps(
                torch.from_numpy(masks.masks).to(box.device, non_blocking=True),
                gt,
                box,
                size,
                binarize=not is_soft,
            )
            for masks, gt, box in zip(truths.masks, objects, boxes, strict=True)
            if len(box)  # else the bitmaps need not be brought to the device
        ]
    )


def own_masks(head: FCNMaskHead, predicted: Tensor, results: Sequence[InstanceData]) -> Tensor:
    """Masks `(N, h, w)`, from 0 to 1, of the classes that were detected, of all images' `results`.

    `predicted` are a head's masks of each class before the sigmoid, `(N, C, h, w)`.
    """
    labels = torch.cat([found.labels for found in results])
    if head.class_agnostic:
        labels = torch.zeros_like(labels)
    rows = torch.arange(len(labels), device=labels.device)
    return predicted[rows, labels].float().sigmoid()


def paste_results(
    masks: Tensor,
    results: list[InstanceData],
    metas: Sequence[dict],
    cfg: ConfigDict,
    rescale: bool,
) -> list[InstanceData]:
    """Gives detections their `masks`, `(N_i, H, W)`: what a head's `predict_by_feat` does.

    `masks`, `(N, h, w)`, are those of all images, from 0 to 1. With `rescale`, boxes and masks are
    brought to the original image.
    """
    parts = masks.split([len(found) for found in results])
    for found, part, meta in zip(results, parts, metas, strict=True):
        height, width = meta["ori_shape"][:2]
        across, down = meta["scale_factor"]
        if rescale:
            found.bboxes = found.bboxes / found.bboxes.new_tensor((across, down) * 2)
        else:
            height, width = round(height * down), round(width * across)
        found.masks = paste_masks(part, found.bboxes, (height, width), cfg.mask_thr_binary)
    return results


def crop_bitmaps(
    bitmaps: Tensor, objects: Tensor, boxes: Tensor, size: tuple[int, int], binarize: bool = True
) -> Tensor:
    """Cuts boxes out of the bitmaps `(G, H, W)` of objects and stretches them to one size.

    Box `(N, 4)`, x1, y1, x2, y2 in pixels, shows the object of its number `(N,)`. Binarized, the
    result `(N, *size)`, float32, is 0 or 1 in place of the share of a cell that is covered.

    Source: `BitmapMasks.crop_and_resize` of mmdet 3.3.0, which copies the whole bitmap once for
    every box.
    """
    rois = torch.cat((objects.to(boxes.dtype)[:, None], boxes), dim=1)
    shares = roi_align(bitmaps[:, None].to(boxes.dtype), rois, size, aligned=True)[:, 0]
    return (shares >= THRESHOLD).float() if binarize else shares.float()


def _clip(rois: Tensor, masks: Sequence[BitmapMasks | PolygonMasks]) -> Tensor:
    """The boxes `(P, 4)` of `rois` `(P, 5)`, clipped to the sizes of the masks."""
    sizes = torch.tensor([[image.width, image.height] for image in masks], dtype=rois.dtype)
    limits = to_device(sizes, rois.device)[rois[:, 0].long()]  # (P, 2)
    return torch.minimum(rois[:, 1:].clamp(min=0), limits.repeat(1, 2))


def _unsupported(masks: Sequence[BitmapMasks | PolygonMasks], is_soft: bool) -> str | None:
    """Why targets cannot be made here from these masks, or `None`."""
    if all(type(image) is BitmapMasks for image in masks):
        return None
    if not all(type(image) is PolygonMasks for image in masks):
        return "masks are neither all bitmaps nor all polygons"
    if is_soft:
        return "soft targets of polygons"
    polygons = [p for image in masks for polygons in image.masks for p in polygons]
    # mmdet computes in the dtype of the polygons, and cuts fractions off if that is an integer.
    if any(p.dtype != np.float64 or len(p) < 6 or len(p) % 2 for p in polygons):
        return "polygons are not in float64, or have less than three corners"
    return None
