"""mmdet's standard RoI head, for all images at once."""

from collections.abc import Sequence

from mmdet.models.roi_heads import StandardRoIHead as MmdetStandardRoIHead
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.heads import unsupported
from swin_mm.heads.ops.assign import pad_boxes
from swin_mm.heads.roi.box_head import box_losses, detect
from swin_mm.heads.roi.extract import extract_features, lay_out
from swin_mm.heads.roi.mask_head import BatchedMasks, mask_losses, own_masks
from swin_mm.heads.roi.samples import GroundTruths, RoISamples, sample_rois
from swin_mm.registry import MODELS


@MODELS.register_module()
class StandardRoIHead(BatchedMasks, MmdetStandardRoIHead):
    """Box head and mask head of Faster R-CNN and Mask R-CNN.

    Arguments, state dict, losses and detections are those of mmdet's `StandardRoIHead`. Assignment,
    sampling, targets and NMS take all images at once and wait for the device a few times in all;
    what `unsupported` lists is left to mmdet's methods.
    """

    def loss(
        self,
        x: Sequence[Tensor],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses of a batch; arguments are those of mmdet's head."""
        if reason := self._unsupported_loss(batch_data_samples):
            unsupported.log_fallback("RoI losses", reason)
            return super().loss(x, rpn_results_list, batch_data_samples)
        x = lay_out(x)
        truths = GroundTruths(batch_data_samples)
        proposals = pad_boxes([found.bboxes for found in rpn_results_list])
        samples = sample_rois(*proposals, truths, self.bbox_assigner, self.bbox_sampler)
        found = self._bbox_forward(x, samples.rois)
        losses = box_losses(
            self.bbox_head, found["cls_score"], found["bbox_pred"], samples, self.train_cfg
        )
        if self.with_mask:
            predicted = self._positive_masks(x, samples, found["bbox_feats"])
            losses |= mask_losses(self.mask_head, predicted, samples, truths, self.train_cfg)
        return losses

    def _positive_masks(
        self, x: Sequence[Tensor], samples: RoISamples, box_features: Tensor
    ) -> Tensor:
        """Predicts the masks of the positives, `(P, C, h, w)`."""
        if self.share_roi_extractor:
            found = self._mask_forward(x, pos_inds=samples.positive, bbox_feats=box_features)
        else:
            found = self._mask_forward(x, samples.rois[samples.positive])
        return found["mask_preds"]

    def _bbox_forward(self, x: Sequence[Tensor], rois: Tensor) -> dict[str, Tensor]:
        features = extract_features(self.bbox_roi_extractor, x, rois)
        if self.with_shared_head:
            features = self.shared_head(features)
        scores, deltas = self.bbox_head(features)
        return dict(cls_score=scores, bbox_pred=deltas, bbox_feats=features)

    def _mask_forward(
        self,
        x: Sequence[Tensor],
        rois: Tensor | None = None,
        pos_inds: Tensor | None = None,
        bbox_feats: Tensor | None = None,
    ) -> dict[str, Tensor]:
        if rois is None:
            return super()._mask_forward(x, rois, pos_inds, bbox_feats)
        features = extract_features(self.mask_roi_extractor, x, rois)
        if self.with_shared_head:
            features = self.shared_head(features)
        return dict(mask_preds=self.mask_head(features), mask_feats=features)

    def predict_bbox(
        self,
        x: Sequence[Tensor],
        batch_img_metas: list[dict],
        rpn_results_list: list[InstanceData],
        rcnn_test_cfg: ConfigDict,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Boxes, scores and labels of a batch, before masks."""
        proposals = [found.bboxes for found in rpn_results_list]
        reason = unsupported.box_head(self.bbox_head) or unsupported.nms(rcnn_test_cfg)
        if reason or not any(map(len, proposals)):
            unsupported.log_fallback("detections", reason or "there are no proposals")
            return super().predict_bbox(
                x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale
            )
        rois = bbox2roi(proposals)
        found = self._bbox_forward(x, rois)
        return detect(
            self.bbox_head,
            rois,
            found["cls_score"],
            found["bbox_pred"],
            batch_img_metas,
            rcnn_test_cfg,
            rescale,
        )

    def predict_own_masks(
        self, x: Sequence[Tensor], rois: Tensor, results: list[InstanceData]
    ) -> Tensor:
        """Masks `(N, h, w)` of the detected classes in boxes `(N, 5)`, from 0 to 1."""
        features = extract_features(self.mask_roi_extractor, x, rois)
        if self.with_shared_head:
            features = self.shared_head(features)
        return own_masks(self.mask_head, features, results)

    def _unsupported_loss(self, samples: list[DetDataSample]) -> str | None:
        return (
            (None if self.with_bbox else "there is no box head")
            or unsupported.replaced(self, "bbox_loss", "mask_loss")
            or unsupported.box_head(self.bbox_head)
            or unsupported.sampling(self.bbox_assigner, self.bbox_sampler)
            or (unsupported.mask_head(self.mask_head) if self.with_mask else None)
            or unsupported.samples(samples)
        )
