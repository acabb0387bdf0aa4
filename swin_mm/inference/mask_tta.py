"""Test-time augmentation that merges boxes and instance masks."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_flip, bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.inference.roi_masks import (
    add_masks,
    predict_boxes,
    predicts_roi_masks,
    unflip_masks,
)
from swin_mm.registry import MODELS


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """mmdet's `DetTTAModel`, which merges boxes, for models with masks too.

    Takes its place and its arguments: views of an image in any scale, flipped horizontally,
    vertically, diagonally or not, come from `TestTimeAug` in the pipeline. Boxes are merged as
    there, by non-maximum suppression over all views. Masks of Mask R-CNN and Cascade Mask R-CNN are
    averages of the probabilities that the views give for the merged boxes (`roi_masks`). Masks of
    any other model are put to the vote: of each view its best detection of the object (of its
    class, with IoU of boxes as in the suppression), weighted by its score; a pixel belongs to the
    object if it has half of all votes.

    Args:
        module: The detector, or its config.
        tta_cfg: `nms`, as the detector's test configuration has it, and `max_per_img`.
        **kwargs: See `BaseTTAModel`.

    Source: the vote is the mask voting of Dai et al., https://arxiv.org/abs/1512.04412, with one
    vote a view.
    """

    def test_step(self, data: Any) -> list[DetDataSample]:
        """Predicts a batch of images, each in several views.

        In `data`, as `TestTimeAug` and `pseudo_collate` make it, `inputs` and `data_samples` are
        lists of views, each with one entry for every image. Of the samples that are returned, what
        is not predicted is that of the first view.
        """
        batches = [dict(zip(data, view, strict=True)) for view in zip(*data.values(), strict=True)]
        if not predicts_roi_masks(self.module):
            predictions = [self._predict_view(batch) for batch in batches]
            return self.merge_preds(list(zip(*predictions, strict=True)))
        views = [predict_boxes(self.module, batch) for batch in batches]
        features, predictions = zip(*views, strict=True)
        metas = [[sample.metainfo for sample in samples] for samples in predictions]
        merged = self.merge_preds(list(zip(*predictions, strict=True)))
        add_masks(self.module, features, metas, [sample.pred_instances for sample in merged])
        return merged

    def _predict_view(self, batch: dict) -> list[DetDataSample]:
        """Predicts a view as if it were the image.

        Told of a flip, HTC and SCNet would turn their masks themselves, which fails: mmdet 3.3's
        `merge_aug_masks` reverses tensors as only NumPy can.
        """
        flips = [(sample.flip, sample.flip_direction) for sample in batch["data_samples"]]
        for sample in batch["data_samples"]:
            sample.set_metainfo({"flip": False, "flip_direction": None})
        samples = self.module.test_step(batch)
        for sample, (flip, direction) in zip(samples, flips, strict=True):
            sample.set_metainfo({"flip": flip, "flip_direction": direction})
        return samples

    def _merge_single_sample(self, data_samples: Sequence[DetDataSample]) -> DetDataSample:
        """Merges the views of one image, masks by the vote."""
        if "pred_panoptic_seg" in data_samples[0]:
            raise ValueError(
                "test-time augmentation does not merge panoptic maps: test without --tta"
            )
        masks = [sample.pred_instances.pop("masks", None) for sample in data_samples]
        views = [
            InstanceData(
                bboxes=_flip_boxes(sample.pred_instances.bboxes, sample.metainfo),
                scores=sample.pred_instances.scores,
                labels=sample.pred_instances.labels,
            )
            for sample in data_samples
        ]
        merged = super()._merge_single_sample(data_samples)
        if masks[0] is not None:
            for view, mask, sample in zip(views, masks, data_samples, strict=True):
                view.masks = unflip_masks(mask, sample.metainfo)
            iou = self.tta_cfg["nms"].get("iou_threshold", 0.5)
            merged.pred_instances.masks = _vote(merged.pred_instances, views, iou)
        return merged


def _flip_boxes(boxes: Tensor, meta: dict) -> Tensor:
    """Turns boxes `(N, 4)` of a view that are in the size of the original image."""
    return bbox_flip(boxes, meta["ori_shape"], meta["flip_direction"]) if meta["flip"] else boxes


def _vote(merged: InstanceData, views: Sequence[InstanceData], threshold: float) -> Tensor:
    """The masks `(N, H, W)`, bool, of merged detections, by the vote of each view's detections.

    `threshold` is the least IoU with a merged box at which a detection is of the same object.
    """
    votes = views[0].masks.new_zeros(len(merged), *views[0].masks.shape[1:], dtype=torch.float32)
    weights = votes.new_zeros(len(merged))
    for view in views:
        if not len(view):
            continue
        same = bbox_overlaps(merged.bboxes, view.bboxes) >= threshold  # (N, detections)
        same &= merged.labels[:, None] == view.labels
        weight, best = torch.where(same, view.scores, 0).max(dim=1)
        for i in torch.nonzero(weight).flatten():
            votes[i] += weight[i] * view.masks[best[i]]
        weights += weight
    return (votes > 0) & (votes >= weights[:, None, None] / 2)
