"""Detectors with the outputs that a file has: `boxes`, `scores`, `labels` and, with masks, `masks`.

The layers are the detector's own. What mmdet and our heads do between them, image by image and
with as many boxes as there happen to be, is done here for all at once with places that may be
empty.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import HybridTaskCascadeRoIHead
from mmdet.models.task_modules import AnchorGenerator
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from swin_mm.export import boxes, operators
from swin_mm.export.inputs import Batch, ExportModule, ImageInput

Outputs = tuple[Tensor, ...]


class DenseDetector(ExportModule):
    """A detector of one stage with anchors or points: RetinaNet, ATSS, RTMDet."""

    output_names = ("boxes", "scores", "labels")

    def forward(self, image: Tensor) -> Outputs:
        """Detects in images `(B, H, W, bands)`: `(B, K, 4)`, `(B, K)` and `(B, K)` int64."""
        batch = self.image_input(image)
        head = self.model.bbox_head
        cfg = head.test_cfg
        levels = zip(*head(self.model.extract_feat(batch.images)), strict=True)
        found = [self._candidates(i, batch, *level) for i, level in enumerate(levels)]
        places, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        scores = boxes.drop_small(places, scores, cfg.get("min_bbox_size", -1))
        # As mmcv's `batched_nms`: classes are moved apart, so that one NMS does for all.
        apart = places
        if not cfg.nms.get("class_agnostic", False):
            largest = places.amax((1, 2), keepdim=True) + 1
            apart = places + labels[..., None].float() * largest
        kept = operators.suppress(
            apart, scores[:, None], cfg.nms.iou_threshold, 0.0, cfg.max_per_img
        )
        scores, index = boxes.top(kept[:, 0], cfg.max_per_img)
        return boxes.take(places, index), scores, labels.gather(1, index)

    def _candidates(
        self, level: int, batch: Batch, cls: Tensor, deltas: Tensor, *center: Tensor
    ) -> Outputs:
        """The best boxes of a level: `(B, N, 4)`, their scores and labels, `(B, N)`."""
        head, cfg = self.model.bbox_head, self.model.bbox_head.test_cfg
        num_classes = head.cls_out_channels
        scores = cls.permute(0, 2, 3, 1).flatten(1).sigmoid()  # (B, A*C)
        scores = torch.where(scores > cfg.get("score_thr", 0), scores, 0.0)
        scores, index = boxes.top(scores, cfg.get("nms_pre", 1000))
        index, labels = index // num_classes, index % num_classes
        deltas = boxes.take(deltas.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)), index)
        generator = head.prior_generator
        if isinstance(generator, AnchorGenerator):
            anchors = boxes.make_anchors(generator, level, cls)
            places = boxes.decode(head.bbox_coder, anchors[index], deltas, batch)
        else:
            points = generator.single_level_grid_priors(cls.shape[2:], level, device=cls.device)
            places = boxes.decode_distances(head.bbox_coder, points[index], deltas, batch)
        if center:  # the centerness of each anchor, after the choice by class
            factors = center[0].permute(0, 2, 3, 1).flatten(1).sigmoid()
            scores = scores * factors.gather(1, index)
        return places, scores, labels


class QueryDetector(ExportModule):
    """DINO."""

    output_names = ("boxes", "scores", "labels")

    def forward(self, image: Tensor) -> Outputs:
        """Detects in images `(B, H, W, bands)`: `(B, K, 4)`, `(B, K)` and `(B, K)` int64."""
        batch = self.image_input(image)
        features = self.model.extract_feat(batch.images)
        head = self.model.bbox_head
        cls, coordinates = head(**self.model.forward_transformer(features, batch.samples()))
        num_classes = head.cls_out_channels
        count = head.test_cfg.get("max_per_img", cls.shape[2])
        scores, index = cls[-1].sigmoid().flatten(1).topk(count, dim=1)
        center, sides = boxes.take(coordinates[-1], index // num_classes).split(2, dim=2)
        scale = image.new_tensor((batch.width, batch.height), dtype=torch.float32)
        low, high = (((center + side * sides) * scale).clamp(min=0) for side in (-0.5, 0.5))
        places = torch.cat([torch.minimum(low, scale), torch.minimum(high, scale)], dim=2)
        return places, scores, index % num_classes


class SparseDetector(ExportModule):
    """Sparse R-CNN."""

    output_names = ("boxes", "scores", "labels")

    def forward(self, image: Tensor) -> Outputs:
        """Detects in images `(B, H, W, bands)`: `(B, K, 4)`, `(B, K)` and `(B, K)` int64."""
        batch = self.image_input(image)
        features = self.model.extract_feat(batch.images)
        rpn, roi_head = self.model.rpn_head, self.model.roi_head
        count = image.shape[0]
        center, sides = rpn.init_proposal_bboxes.weight.split(2, dim=1)
        places = torch.cat([center - 0.5 * sides, center + 0.5 * sides], dim=1)
        scale = torch.cat([places.new_full((1,), s) for s in (batch.width, batch.height)])
        places = (places * scale.repeat(2)).expand(count, -1, -1)
        queries = rpn.init_proposal_features.weight.expand(count, -1, -1)
        for extractor, head in zip(roi_head.bbox_roi_extractor, roi_head.bbox_head, strict=True):
            pooled = _pool(extractor, features, places)
            logits, deltas, queries, _ = head(pooled, queries)
            places = boxes.decode(head.bbox_coder, places, deltas, batch)
        num_classes = logits.shape[2]
        scores, index = boxes.top(logits.sigmoid().flatten(1), roi_head.test_cfg.max_per_img)
        return boxes.take(places, index // num_classes), scores, index % num_classes


class TwoStageDetector(ExportModule):
    """Faster R-CNN, Mask R-CNN, their cascades and HTC."""

    def __init__(self, model: Any, image_input: ImageInput) -> None:
        super().__init__(model, image_input)
        self.is_cascade = isinstance(model.roi_head.bbox_head, nn.ModuleList)
        self.is_hybrid = isinstance(model.roi_head, HybridTaskCascadeRoIHead)
        self.has_semantic = self.is_hybrid and model.roi_head.with_semantic
        self.has_masks = model.roi_head.with_mask
        masks = ("masks",) if self.has_masks else ()
        self.output_names = ("boxes", "scores", "labels", *masks)

    def forward(self, image: Tensor) -> Outputs:
        """Detects in images `(B, H, W, bands)`.

        Returns:
            `(B, K, 4)`, `(B, K)`, `(B, K)` int64 and, with masks, `(B, K, h, w)`, from 0 to 1.
        """
        batch = self.image_input(image)
        features = self.model.extract_feat(batch.images)
        proposals, is_proposal = self._propose(features, batch)
        if self.has_semantic:  # goes last; extractors of boxes take the first maps
            features = [*features, self.model.roi_head.semantic_head(features)[1]]
        places, scores, labels = self._detect(features, proposals, is_proposal, batch)
        if not self.has_masks:
            return places, scores, labels
        return places, scores, labels, self._masks(features, places, labels)

    def _propose(self, features: Sequence[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Proposals `(B, P, 4)`, and where there are any, `(B, P)` bool."""
        head = self.model.rpn_head
        cfg = head.test_cfg
        found, ranked = [], []
        for level, (cls, deltas) in enumerate(zip(*head(features), strict=True)):
            anchors = boxes.make_anchors(head.prior_generator, level, cls)
            scores = cls.permute(0, 2, 3, 1).flatten(1).sigmoid()
            scores, index = boxes.top(scores, cfg.nms_pre)
            deltas = boxes.take(deltas.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4)), index)
            places = boxes.decode(head.bbox_coder, anchors[index], deltas, batch)
            scores = boxes.drop_small(places, scores, cfg.get("min_bbox_size", -1))
            limits = cfg.nms.iou_threshold, 0.0, cfg.max_per_img
            found.append(places)
            ranked.append(operators.suppress(places, scores[:, None], *limits)[:, 0])
        scores, index = boxes.top(torch.cat(ranked, dim=1), cfg.max_per_img)
        return boxes.take(torch.cat(found, dim=1), index), scores > 0

    def _detect(
        self, features: Sequence[Tensor], proposals: Tensor, is_proposal: Tensor, batch: Batch
    ) -> Outputs:
        roi_head = self.model.roi_head
        heads = list(roi_head.bbox_head) if self.is_cascade else [roi_head.bbox_head]
        total: Any = 0
        for stage, head in enumerate(heads):
            pooled = self._pool("bbox", stage, features, proposals)
            logits, deltas = head(pooled)
            logits = logits.unflatten(0, proposals.shape[:2])  # (B, P, C + 1)
            deltas = deltas.unflatten(0, proposals.shape[:2])  # (B, P, 4 or C * 4)
            total = total + logits
            if stage < len(heads) - 1:
                if not head.reg_class_agnostic:
                    deltas = _of_class(deltas, logits[..., :-1].argmax(-1))
                proposals = boxes.decode(head.bbox_coder, proposals, deltas, batch)
        scores = (total / len(heads)).softmax(-1)[..., :-1]
        scores = torch.where(is_proposal[..., None], scores, 0.0).transpose(1, 2)  # (B, C, P)
        return self._choose(head, proposals, deltas, scores, batch)

    def _choose(
        self, head: Any, proposals: Tensor, deltas: Tensor, scores: Tensor, batch: Batch
    ) -> Outputs:
        """Suppresses detections class by class and keeps the best."""
        cfg = self.model.roi_head.test_cfg
        limits = cfg.nms.iou_threshold, cfg.score_thr, cfg.max_per_img
        num_classes, num_boxes = scores.shape[1:]
        if head.reg_class_agnostic:
            places = boxes.decode(head.bbox_coder, proposals, deltas, batch)
            kept = operators.suppress(places, scores, *limits)
        else:
            each = deltas.unflatten(2, (-1, 4)).transpose(1, 2).flatten(1, 2)  # (B, C*P, 4)
            places = boxes.decode(head.bbox_coder, proposals.repeat(1, num_classes, 1), each, batch)
            groups = places.unflatten(1, (num_classes, num_boxes)).flatten(0, 1)
            kept = operators.suppress(groups, scores.flatten(0, 1)[:, None], *limits)
            kept = kept.unflatten(0, (-1, num_classes))[:, :, 0]
        best, index = boxes.top(kept.flatten(1), cfg.max_per_img)
        labels = index // num_boxes
        place = index % num_boxes if head.reg_class_agnostic else index
        return boxes.take(places, place), best, labels

    def _masks(self, features: Sequence[Tensor], places: Tensor, labels: Tensor) -> Tensor:
        """Masks `(B, K, h, w)` of detections, averaged over the stages of a cascade."""
        heads = self.model.roi_head.mask_head
        heads = list(heads) if self.is_cascade else [heads]
        passed_on = None
        if self.is_hybrid:  # the last stage alone, with what earlier ones pass on
            pooled = self._pool("mask", len(heads) - 1, features, places)
            if self.model.roi_head.mask_info_flow:
                for head in heads[:-1]:
                    passed_on = head(pooled, passed_on, return_logits=False)
            stages = [heads[-1](pooled, passed_on, return_feat=False)]
        else:
            stages = [
                head(self._pool("mask", stage, features, places))
                for stage, head in enumerate(heads)
            ]
        total: Any = 0
        for logits in stages:
            masks = logits.sigmoid()
            if masks.shape[1] == 1:
                masks = masks[:, 0]
            else:
                index = labels.flatten()[:, None, None, None]
                masks = masks.gather(1, index.expand(-1, -1, *masks.shape[2:]))[:, 0]
            total = total + masks
        return (total / len(stages)).unflatten(0, places.shape[:2])

    def _pool(self, branch: str, stage: int, features: Sequence[Tensor], places: Tensor) -> Tensor:
        """Features of boxes for a stage, in HTC with those of the semantic branch."""
        roi_head = self.model.roi_head
        extractor = getattr(roi_head, f"{branch}_roi_extractor")
        pooled = _pool(extractor[stage] if self.is_cascade else extractor, features, places)
        if not self.has_semantic or branch not in roi_head.semantic_fusion:
            return pooled
        semantic = _pool(roi_head.semantic_roi_extractor, [features[-1]], places)
        if semantic.shape[2:] != pooled.shape[2:]:
            semantic = adaptive_avg_pool2d(semantic, (pooled.shape[2], pooled.shape[3]))
        return pooled + semantic


def _of_class(deltas: Tensor, labels: Tensor) -> Tensor:
    """Those `(B, P, 4)` of a class `(B, P)` from those of each, `(B, P, C * 4)`."""
    each = deltas.unflatten(2, (-1, 4))
    return each.gather(2, labels[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]


def _pool(extractor: Any, features: Sequence[Tensor], places: Tensor) -> Tensor:
    """Features `(B*K, C, h, w)` of boxes `(B, K, 4)`."""
    maps = list(features[: extractor.num_inputs])
    flat = places.flatten(0, 1)
    levels = extractor.map_roi_levels(
        torch.cat([torch.zeros_like(flat[:, :1]), flat], 1), len(maps)
    )
    layer = extractor.roi_layers[0]
    return operators.pool_rois(
        maps,
        places,
        levels.view(places.shape[:2]),
        [layer.spatial_scale for layer in extractor.roi_layers],
        layer.output_size,
        layer.sampling_ratio,
        layer.aligned,
    )
