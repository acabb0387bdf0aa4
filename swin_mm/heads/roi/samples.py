"""Boxes that RoI heads learn from, of all images at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet.models.task_modules import MaxIoUAssigner, RandomSampler
from mmdet.structures import DetDataSample
from torch import Tensor

from swin_mm.heads.ops.assign import assign, pad_boxes
from swin_mm.heads.ops.sample import sample_randomly
from swin_mm.heads.ops.transfer import to_device


class GroundTruths:
    """Ground truths of a batch."""

    boxes: Tensor  # (B, G, 4), x1, y1, x2, y2 in pixels; zeros where an image has fewer
    labels: Tensor  # (B, G) int64
    present: Tensor  # (B, G) bool, where there is one
    first: Tensor  # (B,) int64, how many there are in the images before
    masks: list | None  # mmdet's, of each image

    def __init__(self, samples: Sequence[DetDataSample]) -> None:
        instances = [sample.gt_instances for sample in samples]
        self.boxes, self.present = pad_boxes([found.bboxes for found in instances])
        self.labels, _ = pad_boxes([found.labels for found in instances])
        counts = torch.tensor([len(found) for found in instances])
        self.first = to_device(counts.cumsum(0) - counts, self.boxes.device)
        self.masks = [found.masks for found in instances] if "masks" in instances[0] else None


@dataclass
class RoISamples:
    """Chosen boxes: image by image, its positives and then its negatives."""

    rois: Tensor  # (S, 5), image index, then x1, y1, x2, y2 in pixels
    is_gt: Tensor  # (S,) bool, whether a box is a ground truth itself
    positive: Tensor  # (P,) int64, where in (S,) the positives are
    gt: Tensor  # (P,) int64, the ground truth of each positive, counted over all images
    gt_boxes: Tensor  # (P, 4), its box
    gt_labels: Tensor  # (P,) int64, its label
    num_pos: list[int]  # of each image
    num_of_image: list[int]  # positives and negatives


def sample_rois(
    boxes: Tensor,
    usable: Tensor,
    truths: GroundTruths,
    assigner: MaxIoUAssigner,
    sampler: RandomSampler,
) -> RoISamples:
    """Assigns boxes to ground truths and chooses those to learn from, as mmdet does one by one.

    It waits for the device once. Of the `boxes` `(B, N, 4)`, those in `usable` `(B, N)` count.
    """
    assigned = assign(assigner, boxes, truths.boxes, truths.present, usable)
    num_added = truths.boxes.shape[1] if sampler.add_gt_as_proposals else 0
    if num_added:
        own = torch.arange(1, num_added + 1, device=boxes.device)
        assigned = torch.cat((torch.where(truths.present, own, -1), assigned), dim=1)
        boxes = torch.cat((truths.boxes, boxes), dim=1)
    chosen = sample_randomly(assigned, sampler.num, sampler.pos_fraction, sampler.neg_pos_ub)
    image, index, positive = chosen.image, chosen.index, chosen.positive
    picked = boxes[image, index]
    pos_image = image[positive]
    gt = assigned[pos_image, index[positive]] - 1
    return RoISamples(
        rois=torch.cat((image[:, None].to(picked.dtype), picked), dim=1),
        is_gt=index < num_added,
        positive=positive,
        gt=truths.first[pos_image] + gt,
        gt_boxes=truths.boxes[pos_image, gt],
        gt_labels=truths.labels[pos_image, gt],
        num_pos=chosen.num_pos,
        num_of_image=[*map(sum, zip(chosen.num_pos, chosen.num_neg, strict=True))],
    )
