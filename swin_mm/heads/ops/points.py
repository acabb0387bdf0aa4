"""Ground truths to points of feature maps, for all images and levels at once.

Nothing here waits for the device. `B` are images, `G` ground truths of an image, `N` points of all
levels: level by level, and in a level row by row.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.heads.ops.assign import pad_boxes, pairwise_iou

MIN_SIDE = 1e-6  # of a ground truth, in pixels, as mmdet's `PointAssigner`
MIN_INSIDE = 0.01  # pixels between the centre of a positive box and the sides of its ground truth


class PointGrid(NamedTuple):
    """Points of all levels; those of a level are its stride apart, beginning at 0."""

    points: Tensor  # (N, 2), x and y in pixels
    strides: Tensor  # (N,), pixels
    sizes: list[int]  # how many points there are in each level
    usable: Tensor  # (B, N) bool, inside the image with its own padding

    @property
    def levels(self) -> Tensor:
        """The number of the level of each point, `(N,)` int64."""
        device = self.points.device
        numbers = enumerate(self.sizes)
        return torch.cat([torch.full((size,), i, device=device) for i, size in numbers])


class GroundTruths(NamedTuple):
    """Ground truths of a batch, at least one to an image; those that are not `present` are zero."""

    boxes: Tensor  # (B, G, 4), x1, y1, x2, y2 in pixels
    labels: Tensor  # (B, G) int64
    present: Tensor  # (B, G) bool
    centers: Tensor  # (B, G, 2), x and y in pixels

    @classmethod
    def pad(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        centers: Sequence[Tensor] | None = None,
    ) -> "GroundTruths":
        """Stacks those of images; `centers` are by default those of the boxes."""
        if centers is None:
            centers = [(image[:, :2] + image[:, 2:]) / 2 for image in boxes]
        room = int(max(map(len, boxes)) == 0)
        padded, present = pad_boxes(boxes)
        return cls(
            F.pad(padded, (0, 0, 0, room)),
            F.pad(pad_boxes(labels)[0], (0, room)),
            F.pad(present, (0, room)),
            F.pad(pad_boxes(centers)[0], (0, 0, 0, room)),
        )

    @property
    def sides(self) -> Tensor:
        """Widths and heights `(B, G, 2)` in pixels."""
        return self.boxes[..., 2:] - self.boxes[..., :2]


class CornerTargets(NamedTuple):
    """What the maps of corners should be; the top left corner first."""

    heat: Tensor  # (B, N, 2): 1 next to a corner, falling with the distance from it
    offsets: Tensor  # (B, N, 4): from points next to corners to these, x and y in strides
    owned: Tensor  # (B, N, 2) bool: points next to a corner


def pick(values: Tensor, assigned: Tensor) -> Tensor:
    """Values `(B, G, ...)` of the ground truths assigned, `(B, N)`; background takes the first."""
    index = (assigned - 1).clamp(min=0)
    image = torch.arange(len(values), device=values.device)[:, None]
    return values[image, index]


def assign_nearest(grid: PointGrid, truths: GroundTruths, scale: float, num: int = 1) -> Tensor:
    """Gives each ground truth the `num` points of one level that are nearest to its centre.

    The level is that whose stride is nearest below the geometric mean of the sides over `scale`.
    Distances are in sides of the ground truth; a point that several claim goes to the nearest.

    Returns:
        `(B, N)` int64: 1 + the number of the ground truth, 0 for background.

    Source: `PointAssigner` of mmdet 3.3.0, which asks ground truth by ground truth.
    """
    sides = truths.sides.clamp(min=MIN_SIDE)
    point_levels = grid.strides.log2().int()
    levels = (sides / scale).log2().mean(-1).int()
    levels = torch.clamp(levels, point_levels.min(), point_levels.max())
    shifts = grid.points - truths.centers[:, :, None]  # (B, G, N, 2)
    distances = (shifts / sides[:, :, None]).norm(dim=-1)
    is_candidate = truths.present[..., None] & grid.usable[:, None]
    is_candidate &= levels[..., None] == point_levels
    distances = distances.masked_fill(~is_candidate, torch.inf)
    nearest, index = distances.topk(min(num, distances.shape[2]), dim=2, largest=False)
    claims = torch.full_like(distances, torch.inf).scatter(2, index, nearest)
    best, owner = claims.min(1)
    return torch.where(best.isfinite(), owner + 1, 0)


def assign_adaptively(
    boxes: Tensor, grid: PointGrid, truths: GroundTruths, topk: int = 9
) -> Tensor:
    """Gives each ground truth the boxes that overlap it more than is usual among the near ones.

    Of `boxes` `(B, N, 4)`, one to a point, near are the `topk` of each level whose centres are
    nearest to that of the ground truth. Of these, positive are those whose IoU reaches mean plus
    standard deviation, and whose centre is inside. A box that several claim goes to the one that it
    overlaps most. Returns the same as `assign_nearest`.

    Source: Zhang et al., 2020, https://arxiv.org/abs/1912.02424; `ATSSAssigner` of mmdet 3.3.0.
    """
    overlaps = pairwise_iou(truths.boxes, boxes)  # (B, G, N)
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2
    distances = (centers[:, None] - truths.centers[:, :, None]).norm(dim=-1)
    distances = distances.masked_fill(~grid.usable[:, None], torch.inf)
    found, indices, start = [], [], 0
    for level in distances.split(grid.sizes, dim=2):
        nearest, index = level.topk(min(topk, level.shape[2]), dim=2, largest=False)
        found.append(nearest)
        indices.append(index + start)
        start += level.shape[2]
    index = torch.cat(indices, dim=2)  # (B, G, K)
    is_near = torch.cat(found, dim=2).isfinite() & truths.present[..., None]
    values = overlaps.gather(2, index)
    count = is_near.sum(2, keepdim=True)
    mean = (values * is_near).sum(2, keepdim=True) / count.clamp(min=1)
    variance = ((values - mean).square() * is_near).sum(2, keepdim=True) / (count - 1).clamp(min=1)
    image = torch.arange(len(boxes), device=boxes.device)[:, None, None]
    near = centers[image, index]  # (B, G, K, 2)
    inside = torch.cat(
        (near - truths.boxes[:, :, None, :2], truths.boxes[:, :, None, 2:] - near), dim=-1
    )
    is_positive = is_near & (values >= mean + variance.sqrt()) & (inside.amin(-1) > MIN_INSIDE)
    claims = torch.full_like(overlaps, -1.0)
    claims = claims.scatter(2, index, torch.where(is_positive, values, -1.0))
    best, owner = claims.max(1)
    return torch.where(best >= 0, owner + 1, 0)


def make_corner_targets(grid: PointGrid, truths: GroundTruths, min_iou: float) -> CornerTargets:
    """Makes heatmaps of the corners of ground truths, and shifts to them, on every level.

    The point of a level nearest to a corner has heat 1 and learns the shift to it; of two corners
    with the same nearest point, it learns that of the later ground truth. Around a corner lies a
    Gaussian, as far as a corner there leaves a box of IoU `min_iou` (`gaussian_radius`).

    Source: Law & Deng, CornerNet, 2018, https://arxiv.org/abs/1808.01244, section 3.2.
    """
    radius = gaussian_radius(truths.sides, min_iou)[..., None]  # (B, G, 1)
    sigma = (2 * radius + 1) / 6
    is_out = ~(truths.present[..., None] & grid.usable[:, None])
    heats, offsets, owned = [], [], []
    for corners in truths.boxes.split(2, dim=-1):
        distances = (grid.points - corners[:, :, None]).norm(dim=-1)  # (B, G, N)
        distances = distances.masked_fill(is_out, torch.inf)
        bumps = torch.exp(-distances.square() / (2 * sigma.square()))
        heat = bumps.masked_fill(distances >= radius, 0).amax(1)
        owner = _own_nearest(distances, grid.sizes)
        shift = (pick(corners, owner) - grid.points) / grid.strides[:, None]
        owned.append(owner > 0)
        heats.append(heat.masked_fill(owned[-1], 1))
        offsets.append(shift * owned[-1][..., None])
    return CornerTargets(torch.stack(heats, -1), torch.cat(offsets, -1), torch.stack(owned, -1))


def _own_nearest(distances: Tensor, sizes: Sequence[int]) -> Tensor:
    """The last ground truth, 1-based, to which a point is the nearest of its level, `(B, N)`."""
    numbers = torch.arange(1, distances.shape[1] + 1, device=distances.device)
    owner = distances.new_zeros(len(distances), distances.shape[2], dtype=torch.long)
    start = 0
    for level in distances.split(list(sizes), dim=2):
        nearest, index = level.min(2)  # (B, G)
        claims = torch.where(nearest.isfinite(), numbers, 0)
        owner = owner.scatter_reduce(1, index + start, claims, "amax")
        start += level.shape[2]
    return owner


def gaussian_radius(sides: Tensor, min_iou: float) -> Tensor:
    """How far corners may be off, in pixels, so that the box still has some IoU with its own.

    Of `sides` `(..., 2)` it is `(...)`, the least of three cases: both corners outside, both
    inside, one of each.

    Source: `gaussian_radius` of mmdet 3.3.0, for one box.
    """
    total, area = sides.sum(-1), sides.prod(-1)
    shifted = total - (total.square() - 4 * area * (1 - min_iou) / (1 + min_iou)).sqrt()
    inner = total - (total.square() - 4 * area * (1 - min_iou)).sqrt()
    outer = (total.square() + 4 * area * (1 - min_iou) / min_iou).sqrt() - total
    return torch.stack((shifted / 2, inner / 4, outer / 4)).amin(0)


def make_class_maps(
    truths: GroundTruths, num_classes: int, size: Sequence[int], stride: int
) -> Tensor:
    """Marks cells that boxes of a class touch, by the weight of the smallest of these boxes.

    A weight is one over the area in square pixels. Boxes of less than one square pixel count as
    one, so that none outweighs the rest of a batch. Maps are `(B, num_classes, *size)`, 0 where
    there is no box of a class; `stride` is the side of a cell in pixels.
    """
    height, width = size
    first_x, first_y, last_x, last_y = (truths.boxes / stride).floor()[..., None].unbind(2)
    x = torch.arange(width, device=first_x.device)
    y = torch.arange(height, device=first_x.device)
    weights = truths.present / truths.sides.prod(-1).clamp(min=1)  # (B, G)
    rows = ((y >= first_y) & (y <= last_y)) * weights[..., None]
    columns = (x >= first_x) & (x <= last_x)  # (B, G, W)
    cells = rows[..., None] * columns[:, :, None]  # (B, G, H, W)
    image = torch.arange(len(cells), device=cells.device)[:, None]
    place = (image * num_classes + truths.labels).flatten()[:, None].expand(-1, height * width)
    maps = cells.new_zeros(len(cells) * num_classes, height * width)
    maps = maps.scatter_reduce(0, place, cells.flatten(2).flatten(0, 1), "amax")
    return maps.view(len(cells), num_classes, height, width)


def find_corners(scores: Tensor, offsets: Tensor, corners: Tensor, stride: int) -> Tensor:
    """Moves corners to the likeliest of the four cells around them, and on by its shift.

    Corners are `(M, 2)`, x and y in pixels, before and after; `scores` `(H, W)` are logits or
    probabilities, `offsets` `(2, H, W)` shifts x and y in strides.
    """
    height, width = scores.shape
    cells = (corners / stride).floor().long()
    step = torch.arange(4, device=corners.device)
    x = cells[:, :1].clamp(0, max(width - 2, 0)) + step % 2  # (M, 4)
    y = cells[:, 1:].clamp(0, max(height - 2, 0)) + step // 2
    places = y.clamp(max=height - 1) * width + x.clamp(max=width - 1)
    best = places.gather(1, scores.flatten()[places].argmax(1, keepdim=True))[:, 0]
    found = torch.stack((best % width, best // width), dim=1)
    return (found + offsets.flatten(1)[:, best].T) * stride
