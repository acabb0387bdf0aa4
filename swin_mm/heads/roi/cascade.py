"""mmdet's cascade of RoI heads, for all images at once."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead as MmdetCascadeRoIHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.heads import unsupported
from swin_mm.heads.ops.assign import pad_boxes
from swin_mm.heads.roi.box_head import (
    box_labels,
    box_losses,
    detect,
    image_limits,
    refine_boxes,
)
from swin_mm.heads.roi.extract import extract_features, lay_out
from swin_mm.heads.roi.mask_head import BatchedMasks, mask_losses, own_masks
from swin_mm.heads.roi.samples import GroundTruths, RoISamples, sample_rois
from swin_mm.registry import MODELS


@MODELS.register_module()
class CascadeRoIHead(BatchedMasks, MmdetCascadeRoIHead):
    """Box heads and mask heads of Cascade R-CNN and Cascade Mask R-CNN.

    Arguments, state dict, losses and detections are those of mmdet's `CascadeRoIHead`. Assignment,
    sampling, targets, refinement and NMS take all images at once. mmdet's methods serve settings
    that `unsupported` lists.
    """

    interleaved = False  # as Hybrid Task Cascade may be

    def loss(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses of a batch, of all stages; arguments are those of mmdet's head."""
        if reason := self._unsupported_loss(batch_data_samples):
            unsupported.log_fallback("RoI losses", reason)
            return super().loss(x, rpn_results_list, batch_data_samples)
        losses, semantic = self._semantic_loss(x, batch_data_samples)
        x = lay_out(x)
        truths = GroundTruths(batch_data_samples)
        boxes, usable = pad_boxes([found.bboxes for found in rpn_results_list])
        limits = image_limits([sample.metainfo for sample in batch_data_samples], boxes)
        for stage in range(self.num_stages):
            self.current_stage = stage
            head, cfg = self.bbox_head[stage], self.train_cfg[stage]
            sampling = truths, self.bbox_assigner[stage], self.bbox_sampler[stage]
            samples = sample_rois(boxes, usable, *sampling)
            found = self._bbox_forward(stage, x, samples.rois, *semantic)
            of_stage = box_losses(head, found["cls_score"], found["bbox_pred"], samples, cfg)
            # As in mmdet, later stages than one without boxes have nothing to learn from.
            is_last = stage == self.num_stages - 1 or not len(samples.rois)
            # Interleaved, a stage's masks learn in the boxes that the stage has refined.
            is_interleaved = self.interleaved and self.with_mask and len(samples.rois)
            if is_interleaved or not (self.interleaved or is_last):
                boxes, usable = self._refine(stage, samples, found, limits)
            if is_interleaved:
                samples = sample_rois(boxes, usable, *sampling)
            if self.with_mask:
                rois = samples.rois[samples.positive]
                masks = self._mask_forward(stage, x, rois, *semantic)["mask_preds"]
                of_stage |= mask_losses(self.mask_head[stage], masks, samples, truths, cfg)
            weight = self.stage_loss_weights[stage]
            for name, value in of_stage.items():
                losses[f"s{stage}.{name}"] = value * weight if "loss" in name else value
            if is_last:
                break
        return losses

    def _semantic_loss(
        self, x: Sequence[Tensor], samples: list[DetDataSample]
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """A semantic head's loss, and the features that it gives the others; here none."""
        return {}, ()

    @torch.no_grad()
    def _refine(
        self, stage: int, samples: RoISamples, found: dict[str, Tensor], limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Boxes for the next stage, `(B, N, 4)`, and which of them count, `(B, N)`.

        Positives move as their own class says, negatives as the likeliest one does. Ground truths
        among the boxes do not count, since the next stage adds them again.
        """
        head = self.bbox_head[stage]
        labels = box_labels(head, samples)
        likeliest = found["cls_score"][:, :-1].argmax(1)
        labels = torch.where(labels == head.num_classes, likeliest, labels)
        refined = refine_boxes(head, samples.rois, found["bbox_pred"], labels, limits)
        boxes, _ = pad_boxes(refined.split(samples.num_of_image))
        usable, _ = pad_boxes((~samples.is_gt).split(samples.num_of_image))
        return boxes, usable

    def _bbox_forward(
        self, stage: int, x: Sequence[Tensor], rois: Tensor, semantic_feat: Tensor | None = None
    ) -> dict[str, Tensor]:
        features = extract_features(self.bbox_roi_extractor[stage], x, rois)
        features = self._fuse("bbox", features, rois, semantic_feat)
        scores, deltas = self.bbox_head[stage](features)
        return dict(cls_score=scores, bbox_pred=deltas, bbox_feats=features)

    def _fuse(
        self, branch: str, features: Tensor, rois: Tensor, semantic_feat: Tensor | None
    ) -> Tensor:
        """Features of boxes, with semantic ones where a branch takes them; here none does."""
        return features

    def _mask_forward(self, stage: int, x: Sequence[Tensor], rois: Tensor) -> dict[str, Tensor]:
        features = extract_features(self.mask_roi_extractor[stage], x, rois)
        return dict(mask_preds=self.mask_head[stage](features))

    def predict_bbox(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: ConfigDict,
        rescale: bool = False,
        **kwargs: Any,
    ) -> list[InstanceData]:
        """Boxes, scores and labels of a batch, before masks."""
        proposals = [found.bboxes for found in rpn_results_list]
        reason = unsupported.replaced(self, "_refine_roi") or self._unsupported_box_heads()
        if reason or not any(map(len, proposals)):
            unsupported.log_fallback("detections", reason or "there are no proposals")
            return super().predict_bbox(
                x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale, **kwargs
            )
        rois, scores, deltas = self._refine_proposals(x, proposals, batch_img_metas, **kwargs)
        head = self.bbox_head[-1]
        if reason := unsupported.nms(rcnn_test_cfg):
            unsupported.log_fallback("suppression of detections", reason)
            sizes = [*map(len, proposals)]
            return head.predict_by_feat(
                *(values.split(sizes) for values in (rois, scores, deltas)),
                batch_img_metas=batch_img_metas,
                rcnn_test_cfg=rcnn_test_cfg,
                rescale=rescale,
            )
        return detect(head, rois, scores, deltas, batch_img_metas, rcnn_test_cfg, rescale)

    def _refine_proposals(
        self, x: Sequence[Tensor], proposals: list[Tensor], metas: list[dict], **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes `(R, 5)` of the last stage, mean scores of all stages, and the last deltas."""
        x = lay_out(x)
        rois = bbox2roi(proposals)
        limits = image_limits(metas, rois)
        scores = []
        for stage, head in enumerate(self.bbox_head):
            found = self._bbox_forward(stage, x, rois, **kwargs)
            scores.append(found["cls_score"])
            if stage < self.num_stages - 1:
                labels = found["cls_score"][:, :-1].argmax(1)
                boxes = refine_boxes(head, rois, found["bbox_pred"], labels, limits)
                rois = torch.cat((rois[:, :1], boxes), dim=1)
        return rois, sum(scores) / self.num_stages, found["bbox_pred"]

    def predict_own_masks(
        self, x: Sequence[Tensor], rois: Tensor, results: list[InstanceData]
    ) -> Tensor:
        """Masks `(N, h, w)` of the detected classes in boxes `(N, 5)`, mean of stages."""
        stages = []
        for stage, head in enumerate(self.mask_head):
            features = extract_features(self.mask_roi_extractor[stage], x, rois)
            stages.append(own_masks(head, features, results))
        return torch.stack(stages).mean(dim=0)

    def _unsupported_box_heads(self) -> str | None:
        return next(filter(None, map(unsupported.box_head, self.bbox_head)), None)

    def _unsupported_loss(self, samples: list[DetDataSample]) -> str | None:
        pairs = zip(self.bbox_assigner, self.bbox_sampler, strict=True)
        sampling = [unsupported.sampling(*pair) for pair in pairs]
        masks = map(unsupported.mask_head, self.mask_head) if self.with_mask else ()
        return (
            unsupported.replaced(self, "bbox_loss", "mask_loss")
            or self._unsupported_box_heads()
            or next(filter(None, (*sampling, *masks)), None)
            or unsupported.samples(samples)
        )
