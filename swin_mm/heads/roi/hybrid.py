"""mmdet's Hybrid Task Cascade of RoI heads, for all images at once."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import HybridTaskCascadeRoIHead as MmdetHybridTaskCascadeRoIHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from swin_mm.heads.roi.cascade import CascadeRoIHead
from swin_mm.heads.roi.extract import extract_features, lay_out
from swin_mm.heads.roi.mask_head import own_masks, predict_masks
from swin_mm.registry import MODELS


@MODELS.register_module()
class HybridTaskCascadeRoIHead(CascadeRoIHead, MmdetHybridTaskCascadeRoIHead):
    """Box, mask and semantic heads of Hybrid Task Cascade.

    Arguments, state dict, losses and detections are those of mmdet's `HybridTaskCascadeRoIHead`.
    All images are taken at once, as in `CascadeRoIHead`; mmdet's methods serve the settings that
    `unsupported` lists. Where mmdet fails because no box is left to refine, the cascade ends with
    that stage.
    """

    def _semantic_loss(
        self, x: Sequence[Tensor], samples: list[DetDataSample]
    ) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        """The semantic head's loss, and the features `(B, C, H, W)` that it gives the others.

        Ground truths have `gt_sem_seg`.
        """
        if not self.with_semantic:
            return {}, ()
        truths = torch.stack([sample.gt_sem_seg.sem_seg for sample in samples])
        predicted, features = self.semantic_head(x)
        losses = dict(loss_semantic_seg=self.semantic_head.loss(predicted, truths))
        return losses, (lay_out([features])[0],)

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
        features, passed_on = self._mask_features(stage, x, rois, semantic_feat)
        masks = self.mask_head[stage](features, passed_on, return_feat=False)
        return dict(mask_preds=masks if training else [masks])

    def _mask_features(
        self, stage: int, x: Sequence[Tensor], rois: Tensor, semantic_feat: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Features of boxes, `(R, C, h, w)`, and those that earlier stages pass on."""
        features = extract_features(self.mask_roi_extractor[stage], x, rois)
        features = self._fuse("mask", features, rois, semantic_feat)
        passed_on = None
        if self.mask_info_flow:
            for head in self.mask_head[:stage]:
                passed_on = head(features, passed_on, return_logits=False)
        return features, passed_on

    def predict_mask(  # type: ignore[override]  # mmdet's HTC has another argument than its cascade
        self,
        x: Sequence[Tensor],
        semantic_heat: Tensor | None,
        batch_img_metas: list[dict],
        results_list: list[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Adds masks to the detections of a batch, those of the last stage."""
        inputs = batch_img_metas, results_list, rescale

        def predict(rois: Tensor) -> Tensor:
            stage = self.num_stages - 1
            features, passed_on = self._mask_features(stage, x, rois, semantic_heat)
            head = self.mask_head[stage]
            if passed_on is not None:
                features = features + head.conv_res(passed_on)
            return own_masks(head, features, results_list)

        found = predict_masks(self, predict, *inputs)
        if found is not None:
            return found
        return MmdetHybridTaskCascadeRoIHead.predict_mask(self, x, semantic_heat, *inputs)

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
