"""RepPoints V2: boxes from points, verified by heatmaps of their corners and maps of classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.ops import CornerPool, DeformConv2d
from mmdet.models.dense_heads import RepPointsHead
from mmdet.models.task_modules import ATSSAssigner, PointAssigner
from mmdet.models.utils import filter_scores_and_topk, multi_apply
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from mmengine.model import bias_init_with_prob, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from swin_mm.heads.dense.point_losses import (
    PointMaps,
    box_loss,
    class_loss,
    corner_losses,
    flatten,
    map_loss,
    widen,
)
from swin_mm.heads.ops.points import (
    GroundTruths,
    PointGrid,
    assign_adaptively,
    assign_nearest,
    find_corners,
)
from swin_mm.heads.ops.transfer import image_sizes, to_device
from swin_mm.registry import MODELS

QUALITY_FOCAL = dict(type="QualityFocalLoss", use_sigmoid=True, beta=2.0, loss_weight=1.0)
GIOU = dict(type="GIoULoss", eps=1e-6, loss_weight=1.0)
DOUBLE_GIOU = dict(GIOU, loss_weight=2.0)
GAUSSIAN_FOCAL = dict(type="GaussianFocalLoss", alpha=2.0, gamma=4.0, loss_weight=0.25)
SMOOTH_L1 = dict(type="SmoothL1Loss", beta=1.0 / 9.0, loss_weight=1.0)
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=0.1)
CORNER_MAPS = 6  # two scores and two pairs of shifts, which points are read from, too
# The level whose heatmap refines the boxes of each level; small boxes are not refined.
CORNER_LEVELS = (None, 0, 0, 1, 1)


class Matches(NamedTuple):
    """What a batch was learnt from."""

    grid: PointGrid
    truths: GroundTruths
    assigned: Tensor  # (B, N): 1 + the ground truth of each refined box, 0 for background


class CornerPoolPack(nn.Module):
    """Pools a map from two sides, `modes` of mmcv's `CornerPool`, towards one corner of objects."""

    def __init__(
        self, channels: int, corner_dim: int, modes: Sequence[str], norm_cfg: dict | None
    ) -> None:
        super().__init__()
        self.pool1, self.pool2 = (CornerPool(mode) for mode in modes)
        self.p1_conv1 = ConvModule(channels, corner_dim, 3, padding=1, norm_cfg=norm_cfg)
        self.p2_conv1 = ConvModule(channels, corner_dim, 3, padding=1, norm_cfg=norm_cfg)
        self.p_conv1 = nn.Conv2d(corner_dim, channels, 3, padding=1, bias=False)
        self.p_gn1 = nn.GroupNorm(32, channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, channels)
        self.conv2 = ConvModule(channels, channels, 1, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(B, channels, H, W)` to such."""
        pooled = self.pool1(self.p1_conv1(x)) + self.pool2(self.p2_conv1(x))
        return self.conv2(F.relu(self.p_gn1(self.p_conv1(pooled)) + self.gn1(self.conv1(x))))


@MODELS.register_module()
class RepPointsV2Head(RepPointsHead):
    """RepPoints with verification: heatmaps of corners and maps of classes beside the points.

    The maps of corners and classes are learnt, read by the branches of points and classes, and the
    heatmaps move the corners of the boxes found on all levels but the finest (joint inference).
    State dict, losses and boxes are those of the official Swin detection repository, with these
    exceptions: on a level with fewer points than ATSS's `topk`, the official code repeats random
    ones, here each counts once; scores below `score_thr` are left out before the `nms_pre` best are
    chosen, as in mmdet 3; a box loss measures boxes turned inside out like mmdet's `GIoULoss`; a
    batch without objects has a finite loss of classes. Losses are computed in float32, of all
    images and levels at once.

    Args:
        num_classes: Number of classes.
        in_channels: Channels of the maps of the neck.
        shared_stacked_convs: Convolutions between the branch of points and the verification.
        corner_dim: Channels that corner pooling pools.
        corner_refine: Whether heatmaps move the corners of boxes.
        transform_method: How points make a box: `'exact_minmax'` takes the first two as corners;
            the others are those of mmdet's `RepPointsHead`.
        gaussian_iou: How much IoU a box has at least within the bump of a heatmap.
        loss_cls: Loss of classes; a `QualityFocalLoss` learns the IoU.
        loss_bbox_init: Loss of the boxes of the first points.
        loss_bbox_refine: Loss of the boxes of the refined points.
        loss_heatmap: Loss of the heatmaps of corners.
        loss_offset: Loss of the shifts to corners.
        loss_sem: Loss of the maps of classes, by elements: a `FocalLoss`.
        **kwargs: Those of `RepPointsHead`. `train_cfg` has `init.assigner`, a `PointAssigner`, and
            `refine.assigner`, an `ATSSAssigner`.

    Raises:
        ValueError: When points are a grid of the box, or an assigner is another one.

    Source:
        Chen et al., RepPoints V2, 2020, https://arxiv.org/abs/2007.08508;
        https://github.com/SwinTransformer/Swin-Transformer-Object-Detection at c7b2011.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        shared_stacked_convs: int = 1,
        corner_dim: int = 64,
        corner_refine: bool = True,
        transform_method: str = "exact_minmax",
        gaussian_iou: float = 0.7,
        loss_cls: dict = QUALITY_FOCAL,
        loss_bbox_init: dict = GIOU,
        loss_bbox_refine: dict = DOUBLE_GIOU,
        loss_heatmap: dict = GAUSSIAN_FOCAL,
        loss_offset: dict = SMOOTH_L1,
        loss_sem: dict = FOCAL,
        init_cfg: dict | list[dict] | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("use_grid_points") or not kwargs.get("center_init", True):
            raise ValueError(
                "points must be free and begin at the centre: leave out use_grid_points and "
                "center_init"
            )
        self.shared_stacked_convs = shared_stacked_convs
        self.corner_dim = corner_dim
        super().__init__(
            num_classes,
            in_channels,
            loss_cls=loss_cls,
            loss_bbox_init=loss_bbox_init,
            loss_bbox_refine=loss_bbox_refine,
            transform_method=transform_method,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.corner_refine = corner_refine
        self.gaussian_iou = gaussian_iou
        self.loss_heatmap = MMDET_MODELS.build(loss_heatmap)
        self.loss_offset = MMDET_MODELS.build(loss_offset)
        self.loss_sem = MMDET_MODELS.build(loss_sem)
        if self.train_cfg:
            _check_assigner("init", self.init_assigner, PointAssigner)
            _check_assigner("refine", self.refine_assigner, ATSSAssigner)

    def _init_layers(self) -> None:
        super()._init_layers()
        width, points = self.feat_channels, self.point_feat_channels
        kernel = dict(kernel_size=self.dcn_kernel, padding=self.dcn_pad)
        self.reppoints_cls_conv = DeformConv2d(width + CORNER_MAPS, points, **kernel)
        self.reppoints_pts_refine_conv = DeformConv2d(width + CORNER_MAPS, points, **kernel)
        layer_cfg = dict(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg)
        self.shared_convs = nn.ModuleList(
            ConvModule(width, width, 3, padding=1, **layer_cfg)
            for _ in range(self.shared_stacked_convs)
        )
        self.hem_tl = CornerPoolPack(width, self.corner_dim, ("top", "left"), self.norm_cfg)
        self.hem_br = CornerPoolPack(width, self.corner_dim, ("bottom", "right"), self.norm_cfg)
        self.reppoints_hem_tl_score_out = nn.Conv2d(width, 1, 3, padding=1)
        self.reppoints_hem_br_score_out = nn.Conv2d(width, 1, 3, padding=1)
        self.reppoints_hem_tl_offset_out = nn.Conv2d(width, 2, 3, padding=1)
        self.reppoints_hem_br_offset_out = nn.Conv2d(width, 2, 3, padding=1)
        self.reppoints_sem_out = nn.Conv2d(width, self.cls_out_channels, 1)
        self.reppoints_sem_embedding = ConvModule(width, width, 1, **layer_cfg)

    def init_weights(self) -> None:
        """Draws weights around zero; scores begin at a probability of 0.01."""
        super().init_weights()
        for module in (*self.cls_convs, *self.reg_convs, *self.shared_convs):
            normal_init(module.conv, std=0.01)
        for name, module in self.named_children():
            if name.startswith("reppoints_") and not isinstance(module, ConvModule):
                is_score = name.endswith(("cls_out", "sem_out", "score_out"))
                normal_init(module, std=0.01, bias=bias_init_with_prob(0.01) if is_score else 0)

    def points2bbox(self, pts: Tensor, y_first: bool = True) -> Tensor:
        """Boxes `(B, 4, ...)`, x1, y1, x2, y2, of points `(B, 2 * points, ...)`."""
        if self.transform_method != "exact_minmax":
            return super().points2bbox(pts, y_first)
        return pts[:, [1, 0, 3, 2]] if y_first else pts[:, :4]

    def forward(self, feats: Sequence[Tensor]) -> tuple[list[Tensor], ...]:
        """Predicts the maps of `PointMaps` from maps `(B, in_channels, H, W)` of all levels."""
        return multi_apply(self.forward_single, feats)

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Predicts one of each of `PointMaps` from the map of a level."""
        return self._predict_maps(x)[0]

    def _predict_maps(self, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Predictions of a level, and the features `(B, C, H, W)` from which classes are read."""
        cls_feat = pts_feat = x
        for conv in self.cls_convs:
            cls_feat = conv(cls_feat)
        for conv in self.reg_convs:
            pts_feat = conv(pts_feat)
        shared = pts_feat
        for conv in self.shared_convs:
            shared = conv(shared)
        class_scores = self.reppoints_sem_out(shared)
        embedding = self.reppoints_sem_embedding(shared)
        cls_feat, pts_feat, corner_feat = (f + embedding for f in (cls_feat, pts_feat, shared))

        top_left, bottom_right = self.hem_tl(corner_feat), self.hem_br(corner_feat)
        scores = self.reppoints_hem_tl_score_out(top_left)
        scores = torch.cat((scores, self.reppoints_hem_br_score_out(bottom_right)), dim=1)
        offsets = self.reppoints_hem_tl_offset_out(top_left)
        offsets = torch.cat((offsets, self.reppoints_hem_br_offset_out(bottom_right)), dim=1)

        init = self.reppoints_pts_init_out(F.relu(self.reppoints_pts_init_conv(pts_feat)))
        # The branches that read at the points move these by a tenth of their gradient.
        slowed = init.detach().lerp(init, self.gradient_mul)
        shifts = slowed - self.dcn_base_offset.type_as(x)
        cls_feat = torch.cat((cls_feat, scores, offsets), dim=1)
        pts_feat = torch.cat((pts_feat, scores, offsets), dim=1)
        cls_tower = F.relu(self.reppoints_cls_conv(cls_feat, shifts))
        refine = F.relu(self.reppoints_pts_refine_conv(pts_feat, shifts))
        refine = self.reppoints_pts_refine_out(refine) + init.detach()
        cls_scores = self.reppoints_cls_out(cls_tower)
        return (cls_scores, init, refine, scores, offsets, class_scores), cls_tower

    def loss_by_feat(self, *args: Any) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            *args: What `forward` returns; of each image, ground truths (`bboxes` `(G, 4)`, `labels`
                `(G,)`), its metadata, and ground truths to ignore, which are not used.
        """
        *maps, instances, metas, _ = args
        return self._learn(PointMaps(*maps), instances, metas)[0]

    def _learn(
        self, maps: PointMaps, instances: list[InstanceData], metas: list[dict]
    ) -> tuple[dict[str, Tensor], Matches]:
        grid = self._make_grid(maps, metas)
        truths = self._collect_truths(instances)
        first, refined = (self._decode(pts, grid) for pts in (maps.pts_init, maps.pts_refine))
        with torch.no_grad():
            scale, num = self.init_assigner.scale, self.init_assigner.pos_num
            assigned_first = assign_nearest(grid, truths, scale, num)
            assigned = assign_adaptively(first, grid, truths, self.refine_assigner.topk)
        learnt = (grid, truths)
        losses = dict(
            loss_cls=class_loss(
                self.loss_cls, flatten(maps.cls_scores), refined, assigned, *learnt
            ),
            loss_pts_init=box_loss(
                self.loss_bbox_init, first, assigned_first, *learnt, self.point_base_scale
            ),
            loss_pts_refine=box_loss(
                self.loss_bbox_refine, refined, assigned, *learnt, self.point_base_scale
            ),
            **corner_losses(self.loss_heatmap, self.loss_offset, maps, *learnt, self.gaussian_iou),
            loss_sem=map_loss(
                self.loss_sem,
                maps.class_scores,
                truths,
                self.num_classes,
                self.point_strides[0],
            ),
        )
        return losses, Matches(grid, truths, assigned)

    def _make_grid(self, maps: PointMaps, metas: list[dict] | None = None) -> PointGrid:
        """The points of a batch; without metadata, all in every image are usable."""
        sizes = [level.shape[-2:] for level in maps.cls_scores]
        device = maps.cls_scores[0].device
        levels = self.prior_generator.grid_priors(sizes, device=device, with_stride=True)
        flat = torch.cat(levels)
        points, strides = flat[:, :2], flat[:, 2]
        usable = torch.ones(len(maps.cls_scores[0]), len(flat), dtype=torch.bool, device=device)
        if metas is not None:
            pad_shapes = to_device(image_sizes(metas, "pad_shape"), device)
            usable = (points < pad_shapes[:, None]).all(2)
        return PointGrid(points, strides, [len(level) for level in levels], usable)

    def _collect_truths(self, instances: list[InstanceData]) -> GroundTruths:
        boxes = [truth.bboxes for truth in instances]
        return GroundTruths.pad(boxes, [truth.labels for truth in instances])

    def _decode(self, pts: list[Tensor], grid: PointGrid) -> Tensor:
        """Boxes `(B, N, 4)`, x1, y1, x2, y2 in pixels, of points of all levels."""
        boxes = flatten([self.points2bbox(level) for level in pts])
        return boxes * grid.strides[:, None] + grid.points.repeat(1, 2)

    def predict_by_feat(self, *args: Any, **kwargs: Any) -> list[InstanceData]:
        """Detections of a batch; arguments as `_detect`'s, the maps one by one.

        Returns:
            Of each image, by falling score: `bboxes` `(N_i, 4)`, x1, y1, x2, y2 in pixels, `scores`
            and `labels`.
        """
        found = self._detect(PointMaps(*args), **kwargs)
        for image in found:
            image.pop("places")
        return found

    def _detect(
        self,
        maps: PointMaps,
        batch_img_metas: list[dict],
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Detections with their `places`, the numbers of their points among those of all levels."""
        cfg = self.test_cfg if cfg is None else cfg
        grid = self._make_grid(maps)
        boxes = self._decode(maps.pts_refine, grid).split(grid.sizes, dim=1)
        scores = flatten(maps.cls_scores).sigmoid().split(grid.sizes, dim=1)
        found = []
        for i, meta in enumerate(batch_img_metas):
            parts, start = [], 0
            for level, size in enumerate(grid.sizes):
                limit = cfg.get("nms_pre", -1)
                picked, labels, index, _ = filter_scores_and_topk(
                    scores[level][i], cfg.score_thr, limit if limit > 0 else size * self.num_classes
                )
                refined = self._move_corners(boxes[level][i, index], maps, i, level, meta)
                parts.append((refined, picked, labels, index + start))
                start += size
            bboxes, scored, labels, places = map(torch.cat, zip(*parts, strict=True))
            results = InstanceData(bboxes=bboxes, scores=scored, labels=labels, places=places)
            found.append(self._bbox_post_process(results, cfg, rescale, with_nms, meta))
        return found

    def _move_corners(
        self, boxes: Tensor, maps: PointMaps, image: int, level: int, meta: dict
    ) -> Tensor:
        """Boxes `(M, 4)` of a level, clipped, with their corners where the heatmaps see them."""
        boxes = _clip(boxes, meta["img_shape"])
        source = CORNER_LEVELS[min(level, len(CORNER_LEVELS) - 1)]
        if not self.corner_refine or source is None:
            return boxes
        scores = widen(maps.corner_scores[source][image])
        offsets = widen(maps.corner_offsets[source][image]).split(2)
        stride = self.point_strides[source]
        corners = zip(scores, offsets, boxes.split(2, dim=1), strict=True)
        moved = [find_corners(heat, shift, corner, stride) for heat, shift, corner in corners]
        return _clip(torch.cat(moved, dim=1), meta["img_shape"])


def _clip(boxes: Tensor, img_shape: Sequence[int]) -> Tensor:
    x, y = boxes[:, 0::2].clamp(0, img_shape[1]), boxes[:, 1::2].clamp(0, img_shape[0])
    return torch.stack((x, y), dim=2).flatten(1)


def _check_assigner(stage: str, assigner: Any, wanted: type) -> None:
    if type(assigner) is not wanted or getattr(assigner, "alpha", None) is not None:
        raise ValueError(
            f"train_cfg.{stage}.assigner must be a plain {wanted.__name__}, got {assigner!r}"
        )
