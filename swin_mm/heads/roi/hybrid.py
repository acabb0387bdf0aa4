"""mmdet's Hybrid Task Cascade of RoI heads, for all images at once."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import HybridTaskCascadeRoIHead as MmdetHybridTaskCascadeRoIHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from swin_mm.heads import unsupported
from swin_mm.heads.ops.assign import pad_boxes
from swin_mm.heads.roi.box_head import box_losses, image_limits
from swin_mm.heads.roi.cascade import CascadeRoIHead
from swin_mm.heads.roi.extract import extract_features, lay_out
from swin_mm.heads.roi.mask_head import mask_losses
from swin_mm.heads.roi.samples import GroundTruths, sample_rois
from swin_mm.registry import MODELS


@MODELS.register_module()
class HybridTaskCascadeRoIHead(MmdetHybridTaskCascadeRoIHead, CascadeRoIHead):
    """Box, mask and semantic heads of Hybrid Task Cascade.

    Arguments, state dict, losses and detections are those of mmdet's `HybridTaskCascadeRoIHead`.
    All images are taken at once, as in `CascadeRoIHead`; mmdet's methods serve the settings that
    `unsupported` lists. Where mmdet fails because no box is left to refine, the cascade ends with
    that stage.
    """

    def loss(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses of a batch, of the semantic head and of all stages.

        Args:
            x: Feature maps of each level, `(B, C, H, W)`.
            rpn_results_list: Of each image the proposals, `bboxes` `(N_i, 4)`.
            batch_data_samples: Of each image the ground truths, with a semantic head also
                `gt_sem_seg`.
        """
        if reason := self._unsupported_loss(batch_data_samples):
            unsupported.log_fallback("RoI losses", reason)
            return super().loss(x, rpn_results_list, batch_data_samples)
        losses, semantic_feat = self._semantic_loss(x, batch_data_samples)
        x = lay_out(x)
        truths = GroundTruths(batch_data_samples)
        boxes, usable = pad_boxes([found.bboxes for found in rpn_results_list])
        limits = image_limits([sample.metainfo for sample in batch_data_samples], boxes)
        for stage in range(self.num_stages):
            self.current_stage = stage
            head, cfg = self.bbox_head[stage], self.train_cfg[stage]
            sampling = truths, self.bbox_assigner[stage], self.bbox_sampler[stage]
            samples = sample_rois(boxes, usable, *sampling)
            found = self._bbox_forward(stage, x, samples.rois, semantic_feat)
            of_stage = box_losses(head, found["cls_score"], found["bbox_pred"], samples, cfg)
            is_last = stage == self.num_stages - 1 or not len(samples.rois)
            # Interleaved, a stage's masks learn in the boxes that the stage has refined.
            is_interleaved = self.interleaved and self.with_mask and len(samples.rois)
            if is_interleaved or not (self.interleaved or is_last):
                boxes, usable = self._refine(stage, samples, found, limits)
            if is_interleaved:
                samples = sample_rois(boxes, usable, *sampling)
            if self.with_mask:
                rois = samples.rois[samples.positive]
                masks = self._mask_forward(stage, x, rois, semantic_feat)["mask_preds"]
                of_stage |= mask_losses(self.mask_head[stage], masks, samples, truths, cfg)
            losses |= self._weigh(stage, of_stage)
            if is_last:
                break
        return losses

    def _semantic_loss(
        self, x: Sequence[Tensor], samples: list[DetDataSample]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The semantic head's loss, and the features `(B, C, H, W)` that it gives the others."""
        if not self.with_semantic:
            return {}, None
        truths = torch.stack([sample.gt_sem_seg.sem_seg for sample in samples])
        predicted, features = self.semantic_head(x)
        losses = dict(loss_semantic_seg=self.semantic_head.loss(predicted, truths))
        return losses, lay_out([features])[0]

    def _bbox_forward(
        self, stage: int, x: Sequence[Tensor], rois: Tensor, semantic_feat: Tensor | None = None
    ) -> dict[str, Tensor]:
        features = extract_features(self.bbox_roi_extractor[stage], x, rois)
        features = self._fuse("bbox", features, rois, semantic_feat)
        scores, deltas = self.bbox_head[stage](features)
        return dict(cls_score=scores, bbox_pred=deltas)

    def _mask_forward(
        self,
        stage: int,
        x: Sequence[Tensor],
        rois: Tensor,
        semantic_feat: Tensor | None = None,
        training: bool = True,
    ) -> dict[str, Any]:
        """Masks before the sigmoid, `(R, C, h, w)`, in a list when not in training.

        mmdet also predicts the masks of all earlier stages in that case, and drops them.
        """
        features = extract_features(self.mask_roi_extractor[stage], x, rois)
        features = self._fuse("mask", features, rois, semantic_feat)
        passed_on = None
        if self.mask_info_flow:
            for head in self.mask_head[:stage]:
                passed_on = head(features, passed_on, return_logits=False)
        masks = self.mask_head[stage](features, passed_on, return_feat=False)
        return dict(mask_preds=masks if training else [masks])

    def _fuse(
        self, branch: str, features: Tensor, rois: Tensor, semantic_feat: Tensor | None
    ) -> Tensor:
        """Adds the semantic features of boxes to theirs, if a branch takes them."""
        if semantic_feat is None or branch not in self.semantic_fusion:
            return features
        pooled = extract_features(self.semantic_roi_extractor, [semantic_feat], rois)
        if pooled.shape[-2:] != features.shape[-2:]:
            pooled = adaptive_avg_pool2d(pooled, (features.shape[-2], features.shape[-1]))
        return features + pooled
