"""Joins what was detected in overlapping slices into the objects of the whole image.

A detection that reaches an inner border of its slice is a *piece*: the object may go on beyond. The
others are *whole*. Two whole detections of one object differ little, so the better one is kept, as
non-maximum suppression does. A piece gives way to a whole detection of the same object, and pieces
that agree are united, masks and boxes.

Whether a piece agrees with another detection can be judged only where both slices look. There it is
exact: they show the same pixels, so the same object looks the same, however large a part of it lies
beyond. SAHI (https://github.com/obss/sahi, version 0.12.8), whose parameters these are, compares
whole boxes instead, so an object must be small beside the overlap; and keeps masks as outlines,
whose union fills holes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from swin_mm.inference.run_length import MaskCrop, Region, overlap
from swin_mm.structures import Objects

MATCH_METRICS = ("IOS", "IOU")
# How near a slice's border a box must end to be cut by it, in pixels: a cell of Swin's finest map.
BORDER = 4.0
# A detection with less than this part of its object's best score is dropped as a duplicate: united
# with the others, a doubtful one would spoil good masks, and link objects that have nothing in
# common.
TRUST = 0.5


@dataclass(frozen=True)
class MatchRule:
    """When two detections of different slices are of one object.

    Attributes:
        metric: What a piece and another detection must reach where both slices look: intersection
            over the smaller area (`IOS`) or over the union (`IOU`); of masks, where there are any.
            Whole detections are compared by IoU of boxes in any case, as non-maximum suppression
            does: a small object may lie on a large one of its class.
        threshold: How much it must be, above 0 and at most 1.
        class_agnostic: Whether detections of different classes can be one object.

    Raises:
        ValueError: The metric or the threshold makes no sense.
    """

    metric: str = "IOS"
    threshold: float = 0.5
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        if self.metric not in MATCH_METRICS:
            raise ValueError(f"match_metric must be one of {MATCH_METRICS}, got {self.metric!r}")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"match_threshold must be above 0, at most 1, got {self.threshold}")


def merge_slices(
    found: InstanceData,
    slices: Sequence[Region],
    image_size: tuple[int, int],
    rule: MatchRule,
) -> Objects:
    """Joins detections of slices into objects.

    Args:
        found: What was detected, as arrays in coordinates of the image: `bboxes` `(N, 4)`, `scores`
            and `labels` `(N,)`, `slices` `(N,)`, which slice each was found in, and from a model
            with masks `masks` `(N,)`, each a `MaskCrop`.
        slices: Where the slices lie. One may be the whole image, seen smaller: nothing is cut
            there, so its detections are all whole.
        image_size: Height and width, in pixels.
        rule: When two detections match.

    Returns:
        The objects. Each has the score and class of its best detection.
    """
    regions = np.array(slices, dtype=float).reshape(-1, 4)
    cut = _find_cuts(found, regions, image_size)
    keep = np.flatnonzero(~_better_seen_elsewhere(found, regions, cut, image_size))
    found, is_piece = found[keep], np.any(cut[keep], axis=1)
    partners = _find_partners(found, slices, is_piece, rule)
    return _build(found, is_piece, _group(found, is_piece, partners), image_size)


def _find_cuts(found: InstanceData, regions: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Which sides of each box end at a border of its slice that is none of the image, `(N, 4)`."""
    region = regions[found.slices]  # (N, 4)
    return (np.abs(found.bboxes - region) <= BORDER) & _inner_borders(region, image_size)


def _inner_borders(regions: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Which borders of slices are not borders of the image, `(..., 4)`."""
    height, width = image_size
    return regions != np.array([0, 0, width, height])


def _better_seen_elsewhere(
    found: InstanceData, regions: np.ndarray, cut: np.ndarray, image_size: tuple[int, int]
) -> np.ndarray:
    """Which pieces another slice shows uncut, `(N,)`.

    That slice shows all of the piece and what is beyond the border, so what it makes of the object
    counts, even if it sees none: slivers at borders are mostly mistakes. The whole image, seen
    smaller, does not count as a slice here.
    """
    is_inner = _inner_borders(regions, image_size)  # (S, 4)
    margin = np.where(is_inner, BORDER, -np.inf)[is_inner.any(axis=1)]
    others = regions[is_inner.any(axis=1)]
    better = np.zeros(len(found), dtype=bool)
    for i in np.flatnonzero(cut.any(axis=1)):
        starts = found.bboxes[i, :2] - others[:, :2] > margin[:, :2]
        ends = others[:, 2:] - found.bboxes[i, 2:] > margin[:, 2:]
        better[i] = (starts & ends).all(axis=1).any()
    return better


def _find_partners(
    found: InstanceData,
    slices: Sequence[Region],
    is_piece: np.ndarray,
    rule: MatchRule,
) -> dict[int, list[int]]:
    """Finds the detections of other slices that each may be one object with.

    Slices are taken two by two, so that no table of all detections against all is needed.
    """
    by_slice = [np.flatnonzero(found.slices == number) for number in range(len(slices))]
    partners: dict[int, list[int]] = defaultdict(list)
    for number, ours in enumerate(by_slice):
        for other, theirs in enumerate(by_slice[:number]):
            shared = overlap(slices[number], slices[other])
            if shared is None or not (len(ours) and len(theirs)):
                continue
            match = _match(found, ours, theirs, shared, is_piece, rule)
            for i, j in np.argwhere(match):
                partners[ours[i]].append(theirs[j])
                partners[theirs[j]].append(ours[i])
    return partners


def _match(
    found: InstanceData,
    ours: np.ndarray,
    theirs: np.ndarray,
    shared: Region,
    is_piece: np.ndarray,
    rule: MatchRule,
) -> np.ndarray:
    """Which detections of one slice and of another can be one object, `(len(ours), len(theirs))`.

    `ours` and `theirs` are their numbers, and `shared` is what both slices show.
    """
    first, second = found.bboxes[ours], found.bboxes[theirs]
    whole = _overlap_of_boxes(first, second, "IOU")
    low, high = np.array(shared)[[0, 1, 0, 1]], np.array(shared)[[2, 3, 2, 3]]
    parts = _overlap_of_boxes(first.clip(low, high), second.clip(low, high), rule.metric)
    any_piece = is_piece[ours][:, None] | is_piece[theirs]
    possible = np.where(any_piece, parts, whole) > 0
    if not rule.class_agnostic:
        possible &= found.labels[ours][:, None] == found.labels[theirs]
    if "masks" in found:
        for i, j in np.argwhere(possible & any_piece):
            masks = found.masks[ours[i]], found.masks[theirs[j]]
            parts[i, j] = _overlap_of_masks(*masks, shared, rule.metric)
    return possible & (np.where(any_piece, parts, whole) >= rule.threshold)


def _overlap_of_boxes(first: np.ndarray, second: np.ndarray, metric: str) -> np.ndarray:
    """Compares boxes `(N, 4)` with boxes `(M, 4)`: `(N, M)`, 0 to 1; 0 where a box is empty."""
    sides = np.minimum(first[:, None, 2:], second[:, 2:]) - np.maximum(
        first[:, None, :2], second[:, :2]
    )
    areas = [(b[:, 2:] - b[:, :2]).clip(min=0).prod(axis=1) for b in (first, second)]
    return _ratio(sides.clip(min=0).prod(axis=2), areas[0][:, None], areas[1], metric)


def _overlap_of_masks(first: MaskCrop, second: MaskCrop, shared: Region, metric: str) -> float:
    """Compares what two masks have in a region, 0 to 1; 0 where one has nothing there."""
    ours, theirs = overlap(first.region, shared), overlap(second.region, shared)
    both = overlap(ours, theirs) if ours and theirs else None
    if ours is None or theirs is None or both is None:
        return 0.0
    common = (first.pixels(both) & second.pixels(both)).sum()
    return float(_ratio(common, first.pixels(ours).sum(), second.pixels(theirs).sum(), metric))


def _ratio(common: np.ndarray, first: np.ndarray, second: np.ndarray, metric: str) -> np.ndarray:
    """Relates common areas to the smaller area or to the union; 0 where that is nothing."""
    base = np.minimum(first, second) if metric == "IOS" else first + second - common
    return common / np.maximum(base, np.finfo(np.float32).tiny)


def _group(
    found: InstanceData, is_piece: np.ndarray, partners: dict[int, list[int]]
) -> list[list[int]]:
    """Collects what is one object, from the best detection down; of each the best first."""
    taken = np.zeros(len(found), dtype=bool)
    groups = []
    for leader in np.argsort(-found.scores, kind="stable"):
        if taken[leader]:
            continue
        taken[leader] = True
        group, frontier = [leader], [leader]
        while frontier:
            member = frontier.pop()
            for partner in partners.get(member, ()):
                if taken[partner]:
                    continue
                taken[partner] = True
                if found.scores[partner] < TRUST * found.scores[leader]:
                    continue
                group.append(partner)
                # A chain of whole detections could lead from one object to the next.
                if is_piece[partner] or is_piece[member]:
                    frontier.append(partner)
        groups.append(sorted(group, key=lambda i: -found.scores[i]))
    return groups


def _build(
    found: InstanceData,
    is_piece: np.ndarray,
    groups: list[list[int]],
    image_size: tuple[int, int],
) -> Objects:
    """Makes an object of each group: its best whole detection, or else all its pieces."""
    boxes = np.zeros((len(groups), 4), dtype=np.float32)
    runs = []
    for box, group in zip(boxes, groups, strict=True):
        parts = [i for i in group if not is_piece[i]][:1] or group
        box[:2] = found.bboxes[parts, :2].min(axis=0)
        box[2:] = found.bboxes[parts, 2:].max(axis=0)
        if "masks" in found:
            runs.append(coco_mask.merge([found.masks[i].in_image(*image_size) for i in parts]))
    leaders = np.array([group[0] for group in groups], dtype=np.int64)
    return Objects(
        found.labels[leaders].astype(np.int64),
        boxes,
        found.scores[leaders].astype(np.float32),
        runs if "masks" in found else None,
    )
