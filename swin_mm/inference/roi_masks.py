"""Masks of given boxes, averaged over several views of an image, for detectors with RoI heads.

Boxes are predicted in each view and merged; then every view predicts the masks of the merged boxes
from the features it has already, and the probabilities are averaged before they are thresholded.

Source: Detectron2's `GeneralizedRCNNWithTTA` (https://github.com/facebookresearch/detectron2,
detectron2/modeling/test_time_augmentation.py), which runs the backbone a second time, and mmdet
2.x's `aug_test_mask`; mmdet 3 has no equivalent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import BaseRoIHead, CascadeRoIHead, StandardRoIHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip
from mmengine.structures import InstanceData
from torch import Tensor, nn

from swin_mm.heads import roi
from swin_mm.heads.roi.mask_head import paste_results

RCNN_HEADS = (StandardRoIHead, CascadeRoIHead, roi.StandardRoIHead, roi.CascadeRoIHead)
# Dimensions of `(..., h, w)` that a view's flip reverses.
FLIPPED = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


def predicts_roi_masks(model: nn.Module) -> bool:
    """Whether a model predicts masks as Mask R-CNN and Cascade Mask R-CNN do, box by box.

    Models that go about it in another way (HTC, PointRend, Mask Scoring, queries) do not count.
    """
    if not (isinstance(model, TwoStageDetector) and model.with_roi_head and model.with_mask):
        return False
    head = type(model.roi_head)
    return (
        type(model).predict is TwoStageDetector.predict
        and head.predict is BaseRoIHead.predict
        and head.predict_mask in [known.predict_mask for known in RCNN_HEADS]
        and model.with_rpn
    )


def predict_boxes(
    model: TwoStageDetector, data: dict
) -> tuple[Sequence[Tensor], list[DetDataSample]]:
    """Predicts the boxes of a batch of images in one view.

    Args:
        model: One for which `predicts_roi_masks` holds.
        data: A batch as `test_step` takes it.

    Returns:
        The features of each level, `(B, C, h, w)`; and a sample for each image, whose
        `pred_instances` are the boxes in coordinates of the original image, flipped if the view is.
    """
    data = model.data_preprocessor(data, False)
    samples = data["data_samples"]
    features = model.extract_feat(data["inputs"])
    proposals = model.rpn_head.predict(features, samples, rescale=False)
    found = model.roi_head.predict_bbox(
        features,
        [sample.metainfo for sample in samples],
        proposals,
        rcnn_test_cfg=model.roi_head.test_cfg,
        rescale=True,
    )
    return features, model.add_pred_to_datasample(samples, found)


def add_masks(
    model: TwoStageDetector,
    features: Sequence[Sequence[Tensor]],
    metas: Sequence[Sequence[dict]],
    merged: Sequence[InstanceData],
) -> None:
    """Gives merged detections their `masks`, `(N, H, W)`, bool, of the size of the original image.

    Args:
        model: One for which `predicts_roi_masks` holds.
        features: Of each view of a batch, those of `predict_boxes`.
        metas: Of each view, the meta information of its images.
        merged: The detections of each image, with boxes in the original image.
    """
    is_cascade = isinstance(model.roi_head, CascadeRoIHead)
    predict: Any = (roi.CascadeRoIHead if is_cascade else roi.StandardRoIHead).predict_own_masks
    counts = [len(found) for found in merged]
    total = merged[0].bboxes.new_zeros(sum(counts), 1, 1)
    for maps, view_metas in zip(features, metas, strict=True):
        boxes = [_to_view(found.bboxes, m) for found, m in zip(merged, view_metas, strict=True)]
        if sum(counts):
            masks = predict(model.roi_head, maps, bbox2roi(boxes), list(merged))
            parts = zip(masks.split(counts), view_metas, strict=True)
            total = total + torch.cat([unflip_masks(part, meta) for part, meta in parts])
    # The boxes are in the original image: masks are pasted into that, at scale one.
    scaled = [dict(ori_shape=meta["ori_shape"], scale_factor=(1, 1)) for meta in metas[0]]
    mean = total / len(metas)
    paste_results(mean, list(merged), scaled, model.roi_head.test_cfg, rescale=False)


def _to_view(boxes: Tensor, meta: dict) -> Tensor:
    """Moves boxes `(N, 4)` of the original image to where a view shows them."""
    if meta.get("flip"):
        boxes = bbox_flip(boxes, meta["ori_shape"], meta["flip_direction"])
    return boxes * boxes.new_tensor(meta["scale_factor"]).repeat(2)


def unflip_masks(masks: Tensor, meta: dict) -> Tensor:
    """Turns masks `(..., h, w)` that a view shows as the original image has them."""
    return masks.flip(FLIPPED[meta["flip_direction"]]) if meta.get("flip") else masks
