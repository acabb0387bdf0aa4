"""Mask RepPoints V2: RepPoints V2 with a mask for each object."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.utils import aligned_bilinear
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from swin_mm.heads.dense.conditional_masks import DynamicMaskHead, MaskBranch, MaskHead
from swin_mm.heads.dense.point_losses import PointMaps, flatten, widen
from swin_mm.heads.dense.reppoints_v2_head import Matches, RepPointsV2Head
from swin_mm.heads.ops.points import GroundTruths
from swin_mm.registry import MODELS

BATCH_NORM = dict(type="BN", requires_grad=True)
DICE = dict(type="DiceLoss", use_sigmoid=True, activate=True, eps=5e-6, loss_weight=1.0)
MASK_STRIDE = 4  # of masks that are learnt and drawn, in pixels
DRAWN_AT_ONCE = 16  # masks of whole images, as float32


@MODELS.register_module()
class MaskRepPointsV2Head(RepPointsV2Head):
    """RepPoints V2 whose objects have masks, drawn by networks predicted at their points.

    Objects are assigned by the centres of their masks in place of those of their boxes. State dict,
    losses and masks are those of the official Swin detection repository; sides of maps need not be
    multiples of each other here.

    Args:
        mask_channels: Channels within the branch of mask features.
        mask_convs: Convolutions of that branch, after the sum of levels.
        mask_levels: How many of the finest levels it reads.
        mask_norm_cfg: Its norms, as mmcv builds them.
        dynamic_channels: Channels of mask features, and between the convolutions that draw masks.
        mask_loss_weights: Weights of the losses of masks after each of these convolutions, of
            which there are as many.
        sizes_of_interest: Of objects by level, in pixels.
        max_masks: Of how many positives of a batch masks are learnt.
        loss_mask: Loss of logits of masks: a `DiceLoss`.
        **kwargs: Those of `RepPointsV2Head`.

    Source:
        As `RepPointsV2Head`; masks after Tian et al., CondInst, 2020,
        https://arxiv.org/abs/2003.05664.
    """

    def __init__(
        self,
        *args: Any,
        mask_channels: int = 128,
        mask_convs: int = 4,
        mask_levels: int = 3,
        mask_norm_cfg: dict | None = BATCH_NORM,
        dynamic_channels: int = 8,
        mask_loss_weights: Sequence[float] = (0.0, 0.6, 1.0),
        sizes_of_interest: Sequence[int] = (64, 128, 256, 512, 1024),
        max_masks: int = 500,
        loss_mask: dict = DICE,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.mask_loss_weights = tuple(mask_loss_weights)
        self.max_masks = max_masks
        self.loss_mask = MMDET_MODELS.build(loss_mask)
        branch = MaskBranch(
            self.in_channels,
            mask_channels,
            dynamic_channels,
            mask_levels,
            mask_convs,
            mask_norm_cfg,
        )
        num_convs = len(self.mask_loss_weights)
        drawing = DynamicMaskHead(dynamic_channels, dynamic_channels, num_convs, sizes_of_interest)
        self.mask_head = MaskHead(branch, drawing)
        self.controller = nn.Conv2d(self.point_feat_channels, drawing.num_params, 3, padding=1)

    def init_weights(self) -> None:
        """Also draws the weights of the layer that predicts the networks."""
        super().init_weights()
        normal_init(self.controller, std=0.01)

    def forward(self, feats: Sequence[Tensor]) -> tuple[Any, ...]:
        """Predicts `PointMaps`, parameters of networks `(B, P, H, W)` by level, and mask features.

        The features are `(B, C, H, W)` at the stride of the finest level.
        """
        return *super().forward(feats), self.mask_head.branch(feats)

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Predicts one of each of `PointMaps` and the parameters from the map of a level."""
        maps, cls_tower = self._predict_maps(x)
        return *maps, self.controller(cls_tower)

    def loss_by_feat(self, *args: Any) -> dict[str, Tensor]:
        """Losses of a batch; the ground truths have `masks`, as large as the image or padded.

        Raises:
            ValueError: They have none.
        """
        *maps, params, features, instances, metas, _ = args
        for truth in instances:
            if "masks" not in truth:
                raise ValueError(
                    "a mask head must have masks to learn, got boxes alone: set with_mask=True of "
                    "LoadAnnotations, or choose a model without a mask head"
                )
        losses, matches = self._learn(PointMaps(*maps), instances, metas)
        masks = self._mask_losses(PointMaps(*maps), params, features, matches, instances)
        return losses | masks

    def _collect_truths(self, instances: list[InstanceData]) -> GroundTruths:
        boxes = [truth.bboxes for truth in instances]
        centers = [
            find_centroids(truth.masks.to_tensor(torch.float32, truth.bboxes.device))
            for truth in instances
        ]
        return GroundTruths.pad(boxes, [truth.labels for truth in instances], centers)

    def _mask_losses(
        self,
        maps: PointMaps,
        params: list[Tensor],
        features: Tensor,
        matches: Matches,
        instances: list[InstanceData],
    ) -> dict[str, Tensor]:
        image, place = matches.assigned.nonzero(as_tuple=True)
        if len(place) > self.max_masks:
            chosen = torch.randperm(len(place), device=place.device)[: self.max_masks]
            image, place = image[chosen], place[chosen]
        names = [f"loss_mask_{i}" for i in range(len(self.mask_loss_weights))]
        if not len(place):
            nothing = features.sum() * 0 + sum(level.sum() * 0 for level in params)
            return dict.fromkeys(names, nothing)
        drawn = self._draw(maps, params, features, image, place)
        wanted = self._mask_targets(instances, drawn[0].shape[-2:])
        numbers = matches.assigned[image, place] - 1
        first = torch.tensor([0, *[len(truth) for truth in instances]]).cumsum(0).to(image.device)
        target = wanted[first[image] + numbers].float()
        return {
            name: weight * self.loss_mask(widen(logits[:, 0]), target)
            for name, weight, logits in zip(names, self.mask_loss_weights, drawn, strict=True)
        }

    def _draw(
        self,
        maps: PointMaps,
        params: list[Tensor],
        features: Tensor,
        image: Tensor,
        place: Tensor,
    ) -> list[Tensor]:
        """Logits `(P, 1, H, W)` at `MASK_STRIDE` of points, by image and place in all levels."""
        grid = self._make_grid(maps)
        pts = flatten(maps.pts_init)[image, place].unflatten(1, (-1, 2)).mean(1).flip(1)  # x, y
        strides = grid.strides[place][:, None]
        # Unlike boxes, the official masks are seen from the middles of cells.
        middles = grid.points[place] + strides.div(2, rounding_mode="floor")
        stride = self.point_strides[0]
        drawn = self.mask_head.head(
            features[image],
            flatten(params)[image, place].to(features.dtype),
            pts * strides + middles,
            grid.levels[place],
            stride,
        )
        return [aligned_bilinear(logits, stride // MASK_STRIDE) for logits in drawn]

    def _mask_targets(self, instances: list[InstanceData], size: torch.Size) -> Tensor:
        """Masks of all ground truths, `(G, *size)`: the middle pixel of each cell."""
        cells = []
        for truth in instances:
            masks = truth.masks.to_tensor(torch.uint8, truth.bboxes.device)
            masks = masks[:, MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE]
            height, width = size[0] - masks.shape[1], size[1] - masks.shape[2]
            cells.append(F.pad(masks, (0, width, 0, height)))  # less than 0 cuts off
        return torch.cat(cells)

    def predict_by_feat(self, *args: Any, **kwargs: Any) -> list[InstanceData]:
        """Detections of a batch as `RepPointsV2Head`'s, with `masks` `(N_i, H, W)` bool.

        Masks are as large as the original image with `rescale=True`, else as the resized one.
        """
        *levels, params, features = args
        maps = PointMaps(*levels)
        metas, rescale = kwargs["batch_img_metas"], kwargs.get("rescale", False)
        found = self._detect(maps, **kwargs)
        for i, (detections, meta) in enumerate(zip(found, metas, strict=True)):
            places = detections.pop("places")
            if not kwargs.get("with_nms", True):
                continue
            size = tuple(meta["ori_shape" if rescale else "img_shape"][:2])
            masks = [torch.zeros(0, *size, dtype=torch.bool, device=places.device)]
            for index in places.split(DRAWN_AT_ONCE):
                if len(index):  # no places are split into one part, too
                    image = torch.full_like(index, i)
                    drawn = self._draw(maps, params, features, image, index)[-1]
                    masks.append(self._paste(drawn, meta, size))
            detections.masks = torch.cat(masks)
        return found

    def _paste(self, logits: Tensor, meta: dict, size: tuple[int, int]) -> Tensor:
        """Masks `(P, *size)` of logits `(P, 1, H, W)` at `MASK_STRIDE`."""
        height, width = meta["img_shape"][:2]
        scores = aligned_bilinear(widen(logits).sigmoid(), MASK_STRIDE)[:, :, :height, :width]
        scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return scores[:, 0] > self.test_cfg.get("mask_thr_binary", 0.5)


def find_centroids(masks: Tensor) -> Tensor:
    """Mean x and y, in pixels, of masks `(G, H, W)` of 0 and 1; 0 of an empty one."""
    area = masks.sum((1, 2)).clamp(min=1e-6)
    x = torch.arange(masks.shape[2], dtype=masks.dtype, device=masks.device)
    y = torch.arange(masks.shape[1], dtype=masks.dtype, device=masks.device)
    total = torch.stack(((masks.sum(1) * x).sum(1), (masks.sum(2) * y).sum(1)), dim=1)
    return total / area[:, None]
