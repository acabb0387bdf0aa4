"""mmseg's decode heads, with a loss that never holds the logits of every pixel in memory."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from mmseg.models.decode_heads import FCNHead as MmsegFCNHead
from mmseg.models.decode_heads import UPerHead as MmsegUPerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from swin_mm.heads.ops.upsampled_cross_entropy import upsampled_cross_entropy
from swin_mm.registry import MODELS

EPS = torch.finfo(torch.float32).eps  # mmseg's guard against dividing by no pixels


class ChunkedCrossEntropy(BaseDecodeHead):
    """Computes cross entropy and accuracy a few images at a time; to be the first base of a head.

    Losses, accuracy and gradients are mmseg's; no number goes to the host on the way. Losses other
    than one cross entropy over classes, and samplers of pixels, are left to mmseg.
    """

    def loss_by_feat(self, seg_logits: Tensor, batch_data_samples: list[SegDataSample]) -> dict:
        """The loss by its name, and `acc_seg`, `(1,)`, the percentage of pixels that are right."""
        reason = self._why_mmseg(seg_logits)
        if reason:
            print_log(f"loss of {type(self).__name__} by mmseg: {reason}", "current", logging.DEBUG)
            return super().loss_by_feat(seg_logits, batch_data_samples)
        loss_decode = self._losses()[0]
        labels = self._stack_batch_gt(batch_data_samples).squeeze(1)  # (B, H, W)
        weight = loss_decode.class_weight
        weight = None if weight is None else seg_logits.new_tensor(weight, dtype=torch.float32)
        total, correct = upsampled_cross_entropy(
            seg_logits, labels, weight, self.ignore_index, self.align_corners
        )
        counted = labels != self.ignore_index
        if loss_decode.reduction == "mean":
            total = total / (_average_factor(loss_decode, labels, counted, weight) + EPS)
        accuracy = (correct + EPS) * (100 / (counted.sum() + EPS))
        return {loss_decode.loss_name: loss_decode.loss_weight * total, "acc_seg": accuracy[None]}

    def _losses(self) -> list[Any]:
        several = isinstance(self.loss_decode, nn.ModuleList)
        return list(self.loss_decode) if several else [self.loss_decode]

    def _why_mmseg(self, logits: Tensor) -> str | None:
        """Why mmseg's own loss must do it, or None."""
        losses = self._losses()
        if len(losses) != 1 or type(losses[0]) is not CrossEntropyLoss:
            return f"its losses are {[type(loss).__name__ for loss in losses]}"
        if losses[0].use_sigmoid or losses[0].use_mask or losses[0].reduction == "none":
            return f"use_sigmoid, use_mask or reduction={losses[0].reduction!r}"
        if self.sampler is not None:
            return "it samples pixels"
        if self.ignore_index is None:
            return "ignore_index is None"
        if len(logits) == 0:
            return "there are no images"
        if logits.is_cuda and torch.are_deterministic_algorithms_enabled():
            return "deterministic algorithms are required"
        return None


def _average_factor(
    loss_decode: CrossEntropyLoss, labels: Tensor, counted: Tensor, weight: Tensor | None
) -> Tensor | int:
    """What mmseg divides the sum by: the pixels, or the weights of their classes.

    With weights, an ignored label that is no class weighs nothing; mmseg fails there.
    """
    if weight is None:
        return counted.sum() if loss_decode.avg_non_ignore else labels.numel()
    known = (labels >= 0) & (labels < len(weight))
    if loss_decode.avg_non_ignore:
        known = known & counted
    return (weight[labels.where(known, 0)] * known).sum()


@MODELS.register_module()
class FCNHead(ChunkedCrossEntropy, MmsegFCNHead):
    """Takes the arguments and the state dict of mmseg's `FCNHead`, and computes the same.

    Feature maps are in channels-last memory throughout.

    Source:
        Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015,
        https://arxiv.org/abs/1411.4038
    """

    def _transform_inputs(self, inputs: list[Tensor]) -> Tensor:
        return super()._transform_inputs(inputs).contiguous(memory_format=torch.channels_last)


@MODELS.register_module()
class UPerHead(ChunkedCrossEntropy, MmsegUPerHead):
    """Takes the arguments and the state dict of mmseg's `UPerHead`, and computes the same.

    Feature maps are in channels-last memory throughout.

    Source:
        Xiao et al., Unified Perceptual Parsing for Scene Understanding, 2018,
        https://arxiv.org/abs/1807.10221
    """

    def _transform_inputs(self, inputs: list[Tensor]) -> list[Tensor]:
        chosen = super()._transform_inputs(inputs)
        return [x.contiguous(memory_format=torch.channels_last) for x in chosen]

    def psp_forward(self, inputs: list[Tensor]) -> Tensor:
        """Joins the last map with its averages over regions, `(B, channels, H, W)`."""
        x = inputs[-1]
        # A map of one pixel is in either memory format: enlarged it comes out in the other, and
        # one such map among them makes the joined one, and all that follow, be in it too.
        pooled = [
            part.contiguous(memory_format=torch.channels_last) for part in self.psp_modules(x)
        ]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))
