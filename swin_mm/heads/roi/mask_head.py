"""Losses and predictions of mmdet's mask heads; targets are made on the device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import wrappers
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.structures.bbox import bbox2roi
from mmdet.structures.mask import BitmapMasks, PolygonMasks, mask_target
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torchvision.ops import roi_align

from swin_mm.heads import unsupported
from swin_mm.heads.ops.paste import paste_masks
from swin_mm.heads.ops.polygons import draw_polygons, pack_polygons
from swin_mm.heads.ops.transfer import to_device
from swin_mm.heads.roi.samples import GroundTruths, RoISamples
from swin_mm.models.layers.hooks import has_hooks

CONVOLUTIONS = (nn.Conv2d, wrappers.Conv2d)
TRANSPOSED = (nn.ConvTranspose2d, wrappers.ConvTranspose2d)
BOXES = 8  # whose upsampled features are held at a time, so that they stay in a CPU's cache
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


def own_masks(head: FCNMaskHead, features: Tensor, results: Sequence[InstanceData]) -> Tensor:
    """Predicts masks `(N, h, w)`, from 0 to 1, of the classes that were detected.

    `features`, `(N, C, h', w')`, are those of the boxes of all images' `results`.
    """
    labels = torch.cat([found.labels for found in results])
    if head.class_agnostic:
        labels = torch.zeros_like(labels)
    upsample, last = head.upsample, head.conv_logits
    is_known = unsupported.mask_head(head) is None and not has_hooks(head)
    is_plain = type(last) in CONVOLUTIONS and last.kernel_size == (1, 1) and not has_hooks(last)
    if is_known and is_plain and _is_patchwise(upsample):
        for conv in head.convs:
            features = conv(features)
        logits = _logits_of_class(features, upsample, last, labels)
    else:
        rows = torch.arange(len(labels), device=labels.device)
        predicted = head(features)
        # HTC's heads give their features too.
        logits = (predicted[0] if isinstance(predicted, list) else predicted)[rows, labels]
    return logits.float().sigmoid()


def _is_patchwise(layer: Any) -> bool:
    """Whether a layer turns each pixel into a patch, so that it is a product of matrices."""
    if type(layer) not in TRANSPOSED or has_hooks(layer):
        return False
    is_whole = layer.padding == layer.output_padding == (0, 0) and layer.dilation == (1, 1)
    return is_whole and layer.kernel_size == layer.stride and layer.groups == 1


def _logits_of_class(x: Tensor, upsample: Any, last: Any, labels: Tensor) -> Tensor:
    """`last(relu(upsample(x)))` of one class each, `(N, h, w)`, without maps of upsampled layout.

    `upsample` is one for which `_is_patchwise` holds, and `last` a convolution of single pixels.
    """
    patch_h, patch_w = upsample.kernel_size
    height, width = x.shape[2:]
    weight = upsample.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (kh*kw*C', C)
    bias = None if upsample.bias is None else upsample.bias.repeat(patch_h * patch_w)
    own = last.weight[labels].flatten(1)[:, :, None]  # (N, C', 1)
    parts = []
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (N, h'*w', C)
    for part, own_part in zip(pixels.split(BOXES), own.split(BOXES), strict=True):
        patches = F.linear(part.flatten(0, 1), weight, bias).relu_()  # (n*h'*w', kh*kw*C')
        parts.append(patches.view(len(part), -1, own.shape[1]) @ own_part)
    logits = torch.cat(parts).view(-1, height, width, patch_h, patch_w).transpose(2, 3)
    logits = logits.reshape(-1, height * patch_h, width * patch_w)
    return logits if last.bias is None else logits + last.bias[labels][:, None, None]


def predict_masks(
    head: Any,
    predict: Callable[[Tensor], Tensor],
    metas: Sequence[dict],
    results: list[InstanceData],
    rescale: bool,
) -> list[InstanceData] | None:
    """Adds masks to the detections of a batch; `None` where mmdet's own method must do it.

    `predict` gives the masks `(N, h, w)`, from 0 to 1, of boxes `(N, 5)` of a RoI head.
    """
    heads = head.mask_head if isinstance(head.mask_head, nn.ModuleList) else [head.mask_head]
    rois = bbox2roi([found.bboxes for found in results])
    if reason := unsupported.pasting(heads, rois):
        unsupported.log_fallback("masks", reason)
        return None
    return paste_results(predict(rois), results, metas, head.test_cfg, rescale)


class BatchedMasks:
    """To be mixed into RoI heads that have `predict_own_masks`."""

    def predict_mask(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict],
        results_list: list[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Adds masks to the detections of a batch."""
        inputs = batch_img_metas, results_list, rescale
        head: Any = self
        found = predict_masks(
            head, lambda rois: head.predict_own_masks(x, rois, results_list), *inputs
        )
        return super().predict_mask(x, *inputs) if found is None else found  # type: ignore[misc]


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
