"""mmdet's region proposal head, for all images and levels at once."""

from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import RPNHead as MmdetRPNHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from swin_mm.heads import unsupported
from swin_mm.heads.dense.anchors import Anchors, make_anchors
from swin_mm.heads.ops.assign import assign, pad_boxes
from swin_mm.heads.ops.deltas import decode_deltas, encode_deltas
from swin_mm.heads.ops.nms import suppress_by_level
from swin_mm.heads.ops.sample import Samples, sample_randomly
from swin_mm.heads.ops.transfer import image_sizes, to_device
from swin_mm.registry import MODELS


@MODELS.register_module()
class RPNHead(MmdetRPNHead):
    """Region proposal head with the arguments, the state dict and the results of mmdet's `RPNHead`.

    Anchors are assigned to ground truths, sampled and turned into losses for all images and levels
    at once, and so are scores and shifts into proposals. Only sampled anchors enter the losses. The
    host waits for the device once for the losses and once for the proposals; mmdet waits for each
    image, level and ground truth. What `unsupported` lists is left to mmdet's methods.

    In half precision, anchors, losses and boxes are computed in float32. mmdet rounds anchors of
    proposals to half precision there, which at the far side of an image is to half a pixel and
    more in float16, and to 4 pixels in bfloat16.

    Source:
        Ren et al., Faster R-CNN, 2015, https://arxiv.org/abs/1506.01497; numbers as mmdet 3.3.0.
    """

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData | None] | None = None,
    ) -> dict[str, list[Tensor]]:
        """`loss_rpn_cls` and `loss_rpn_bbox` of a batch, each a number for each level."""
        if reason := unsupported.rpn_losses(self, batch_gt_instances):
            unsupported.log_fallback("RPN losses", reason)
            return super().loss_by_feat(
                cls_scores,
                bbox_preds,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore,
            )
        anchors = self._get_anchors(cls_scores, torch.float32)
        gt_boxes, present = pad_boxes([found.bboxes for found in batch_gt_instances])
        gt_labels, _ = pad_boxes([found.labels for found in batch_gt_instances])
        chosen, gt = self._sample(anchors, gt_boxes, present, batch_img_metas)
        pos = chosen.positive
        image, index = chosen.image[pos], chosen.index[pos]
        avg_factor = sum(max(count, 1) for count in chosen.num_pos + chosen.num_neg)
        levels = anchors.levels[chosen.index]
        places = anchors.locate(chosen.image, chosen.index, len(batch_img_metas))
        # An object has label 0, as mmdet's detectors number all objects for this head.
        is_object = torch.zeros_like(chosen.index)
        is_object = is_object.index_copy(0, pos, (gt_labels[image, gt] == 0).long())
        scores = _flatten(cls_scores, 1).index_select(0, places)
        losses_cls = self.loss_cls(
            scores, is_object[:, None], self._weights(chosen), reduction_override="none"
        )
        deltas = _flatten(bbox_preds, 4).index_select(0, places[pos])
        targets = encode_deltas(anchors.boxes[index], gt_boxes[image, gt], *self._coding)
        losses_bbox = self.loss_bbox(deltas, targets, reduction_override="none")
        num_levels = len(cls_scores)
        return dict(
            loss_rpn_cls=_mean_by_level(losses_cls, levels, num_levels, avg_factor),
            loss_rpn_bbox=_mean_by_level(losses_bbox, levels[pos], num_levels, avg_factor),
        )

    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: list[Tensor] | None = None,
        batch_img_metas: list[dict] | None = None,
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Proposals of a batch, as mmdet's; arguments that it does not support are left to mmdet.

        Returns:
            Of each image, by falling score: `bboxes` `(N_i, 4)`, x1, y1, x2, y2 in pixels, `scores`
            and `labels`, zeros.
        """
        cfg = self.test_cfg if cfg is None else cfg
        if reason := unsupported.rpn_proposals(self, cfg, rescale, with_nms):
            unsupported.log_fallback("RPN proposals", reason)
            return super().predict_by_feat(
                cls_scores, bbox_preds, score_factors, batch_img_metas, cfg, rescale, with_nms
            )
        with torch.no_grad():
            boxes, scores, sizes = self._candidates(
                cls_scores, bbox_preds, batch_img_metas or [], cfg.get("nms_pre", -1)
            )
            valid = torch.ones_like(scores, dtype=torch.bool)
            if (least := cfg.get("min_bbox_size", -1)) >= 0:
                valid = (boxes[..., 2:] - boxes[..., :2] > least).all(2)
            keep = suppress_by_level(boxes, valid, sizes, cfg.nms.iou_threshold)
            return _best(boxes, scores, keep, cfg.max_per_img)

    @property
    def _coding(self) -> tuple[Sequence[float], Sequence[float]]:
        return self.bbox_coder.means, self.bbox_coder.stds

    def _get_anchors(self, maps: list[Tensor], dtype: torch.dtype) -> Anchors:
        sizes = tuple((level.shape[-2], level.shape[-1]) for level in maps)
        return make_anchors(self.prior_generator, sizes, dtype, maps[0].device)

    def _sample(
        self, anchors: Anchors, gt_boxes: Tensor, present: Tensor, metas: list[dict]
    ) -> tuple[Samples, Tensor]:
        """Chooses the anchors to learn from, and finds the ground truths of the positives, `(P,)`.

        Raises:
            ValueError: When no anchor of an image is inside it.
        """
        device, border = gt_boxes.device, self.train_cfg["allowed_border"]
        sizes = image_sizes(metas, "pad_shape"), image_sizes(metas)
        pad_shapes, img_shapes = to_device(torch.cat(sizes, dim=1), device).split(2, dim=1)
        usable = anchors.find_usable(pad_shapes, img_shapes, border)
        assigned = assign(self.assigner, anchors.boxes[None], gt_boxes, present, usable)
        sampler = self.sampler
        chosen = sample_randomly(assigned, sampler.num, sampler.pos_fraction, sampler.neg_pos_ub)
        # mmdet asks every time; an image without samples is what it wants to prevent.
        is_empty = [not pos + neg for pos, neg in zip(chosen.num_pos, chosen.num_neg, strict=True)]
        if any(is_empty) and not usable.any(1).all():
            image = metas[int((~usable.any(1)).int().argmax())]
            raise ValueError(
                f"no anchor is within {border} pixels of an image of {image['img_shape']} pixels: "
                "train_cfg.rpn.allowed_border=-1 takes those that are not, too"
            )
        pos = chosen.positive
        return chosen, assigned[chosen.image[pos], chosen.index[pos]] - 1

    def _weights(self, chosen: Samples) -> Tensor:
        """Weights of the losses of scores, `(S, 1)`."""
        weights = torch.ones(len(chosen.index), 1, device=chosen.index.device)
        if self.train_cfg["pos_weight"] > 0:
            weights = weights.index_fill(0, chosen.positive, self.train_cfg["pos_weight"])
        return weights

    def _candidates(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor], metas: list[dict], num_pre: int
    ) -> tuple[Tensor, Tensor, list[int]]:
        """The best boxes of each level, level by level and there by falling score.

        There are `num_pre` of a level; all, if that is not positive.

        Returns:
            `(B, N, 4)`, x1, y1, x2, y2 in pixels; `(B, N)` scores; how many are of each level.
        """
        dtype = torch.promote_types(cls_scores[0].dtype, torch.float32)
        anchors = self._get_anchors(cls_scores, dtype)
        image = torch.arange(len(metas), device=anchors.boxes.device)[:, None]
        found, indices, start = [], [], 0
        for level in self._scores(cls_scores, anchors.sizes):
            # Not `topk`: equal scores are many, and their order shall be that of mmdet's sort. Not
            # stable either, except where mmdet does not sort and NMS does.
            limit = num_pre if 0 < num_pre < level.shape[1] else None
            ranked, order = level.sort(dim=1, descending=True, stable=limit is None)
            found.append(ranked[:, :limit])
            indices.append(order[:, :limit] + start)
            start += level.shape[1]
        sizes = [level.shape[1] for level in indices]
        index = torch.cat(indices, dim=1)  # (B, N)
        image, index, shape = image.expand_as(index).flatten(), index.flatten(), index.shape
        places = anchors.locate(image, index, len(metas))
        deltas = _flatten(bbox_preds, 4).index_select(0, places)
        limits = None
        if self.bbox_coder.clip_border:
            limits = to_device(image_sizes(metas), index.device)[image]  # (B*N, 2)
        boxes = decode_deltas(anchors.boxes[index], deltas, *self._coding, limits)
        return boxes.unflatten(0, shape), torch.cat(found, dim=1), sizes

    def _scores(self, cls_scores: list[Tensor], sizes: list[int]) -> list[Tensor]:
        """Of each level, whose number of anchors is given, their scores `(B, A_i)`."""
        logits = _flatten(cls_scores, self.cls_out_channels)  # (B*A, 1 or 2)
        num_images = len(cls_scores[0])
        if self.use_sigmoid_cls:
            # On a CPU the last bit depends on where in a tensor a number is, and mmdet takes each
            # level of each image by itself. On a GPU this is one kernel.
            scores = logits[:, 0]
            torch._foreach_sigmoid_(
                scores.split([size for size in sizes for _ in range(num_images)])
            )
        else:
            scores = logits.softmax(1)[:, 0]
        levels = scores.split([num_images * size for size in sizes])
        return [level.unflatten(0, (num_images, -1)) for level in levels]


def _flatten(maps: list[Tensor], channels: int) -> Tensor:
    """Maps `(B, K*C, H, W)` of all levels as numbers of anchors `(B*A, C)`, at least float32.

    Level by level and there image by image, so that the gradient of each map is in one piece, as
    mmdet's is: the order in which a convolution sums depends on it.
    """
    flat = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in maps])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def _mean_by_level(
    losses: Tensor, levels: Tensor, num_levels: int, avg_factor: int
) -> list[Tensor]:
    """Sums losses `(S, C)` in each level and divides them as mmdet does.

    A sum over nothing is zero and has gradients, which are zero too.
    """
    numbers = torch.arange(num_levels, device=levels.device)[:, None]
    of_level = torch.where(levels == numbers, losses.sum(-1), 0)  # (L, S)
    return list((of_level.sum(1) / (avg_factor + torch.finfo(torch.float32).eps)).unbind())


def _best(boxes: Tensor, scores: Tensor, keep: Tensor, max_per_img: int) -> list[InstanceData]:
    """Those to keep of each image, by falling score; waits for the device once."""
    ranked = torch.where(keep, scores, -torch.inf).sort(dim=1, descending=True, stable=True)
    order = ranked.indices[:, :max_per_img]
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    counts = keep.sum(1).clamp(max=max_per_img).tolist()
    return [
        InstanceData(
            bboxes=boxes[image, :count],
            scores=ranked.values[image, :count],
            labels=order.new_zeros(count),
        )
        for image, count in enumerate(counts)
    ]
