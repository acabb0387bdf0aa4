"""Points and ground truths: worked cases by hand, and mmdet's assigners image by image."""

import math

import pytest
import torch
from mmdet.models.task_modules import ATSSAssigner, PointAssigner
from mmdet.models.utils.gaussian_target import gaussian_radius as mmdet_radius
from mmengine.structures import InstanceData

from swin_mm.heads.ops.points import (
    GroundTruths,
    PointGrid,
    assign_adaptively,
    assign_nearest,
    find_corners,
    gaussian_radius,
    make_class_maps,
    make_corner_targets,
)


def make_grid(*sizes, stride=8, usable=None):
    """Levels of `sizes` (height, width), the first with `stride`; others with twice the last."""
    points, strides = [], []
    for level, (height, width) in enumerate(sizes):
        step = stride * 2**level
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        points.append(torch.stack((x, y), -1).reshape(-1, 2) * float(step))
        strides.append(torch.full((height * width,), float(step)))
    counts = [len(level) for level in points]
    if usable is None:
        usable = torch.ones(1, sum(counts), dtype=torch.bool)
    return PointGrid(torch.cat(points), torch.cat(strides), counts, usable)


def truths_of(*images, labels=None):
    boxes = [torch.tensor(boxes).reshape(-1, 4) for boxes in images]
    labels = labels or [[0] * len(image) for image in boxes]
    return GroundTruths.pad(boxes, [torch.tensor(x).long() for x in labels])


def random_case(seed):
    """A grid of three levels, two images of which the second is smaller, and their boxes."""
    torch.manual_seed(seed)
    grid = make_grid((12, 16), (6, 8), (3, 4))
    inside = (grid.points < torch.tensor([100.0, 70])).all(1)
    usable = torch.stack((torch.ones_like(inside), inside))
    images = []
    for count in (5, 3):
        corner = torch.rand(count, 2) * 50
        images.append(torch.cat((corner, corner + 2 + torch.rand(count, 2) * 60), 1))
    labels = [torch.zeros(len(image), dtype=torch.long) for image in images]
    return grid._replace(usable=usable), images, GroundTruths.pad(images, labels)


def by_mmdet(assigner, priors, grid, images, *args):
    """Assignments `(B, N)` image by image; points that are not usable stay background."""
    found = torch.zeros(len(images), len(grid.points), dtype=torch.long)
    for image, boxes in enumerate(images):
        rows = grid.usable[image]
        counts = [int(part.sum()) for part in rows.split(grid.sizes)]
        truth = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        levels = [counts] if isinstance(assigner, ATSSAssigner) else []
        prior = InstanceData(priors=priors[image][rows])
        found[image, rows] = assigner.assign(prior, *levels, truth).gt_inds
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num", [1, 3])
def test_nearest_points_are_those_of_mmdet(seed, num):
    grid, images, truths = random_case(seed)
    priors = torch.cat((grid.points, grid.strides[:, None]), 1).expand(2, -1, -1)
    wanted = by_mmdet(PointAssigner(scale=4, pos_num=num), priors, grid, images)
    assert torch.equal(assign_nearest(grid, truths, 4, num), wanted)
    assert wanted.any()


@pytest.mark.parametrize("seed", range(5))
def test_adaptive_assignment_is_that_of_mmdet(seed):
    grid, images, truths = random_case(seed)
    half = grid.strides[:, None] * (0.5 + 3 * torch.rand(2, len(grid.points), 2))
    boxes = torch.cat((grid.points - half, grid.points + half), dim=-1)
    wanted = by_mmdet(ATSSAssigner(topk=9), boxes, grid, images)
    assert torch.equal(assign_adaptively(boxes, grid, truths, 9), wanted)
    assert wanted.any(1).all()


def test_centres_other_than_those_of_boxes():
    grid = make_grid((4, 4))
    truths = truths_of([[0.0, 0, 32, 32]])
    assert assign_nearest(grid, truths, 4).nonzero().tolist() == [[0, 10]]
    moved = truths._replace(centers=torch.tensor([[[9.0, 23]]]))
    assert assign_nearest(grid, moved, 4).nonzero().tolist() == [[0, 13]]


def test_no_ground_truths():
    grid = make_grid((4, 4), (2, 2))
    truths = truths_of([], [])
    grid = grid._replace(usable=grid.usable.expand(2, -1))
    boxes = torch.cat((grid.points, grid.points + 8), 1).expand(2, -1, -1)
    assert not assign_nearest(grid, truths, 4).any()
    assert not assign_adaptively(boxes, grid, truths).any()
    targets = make_corner_targets(grid, truths, 0.7)
    assert not any(tensor.any() for tensor in targets)
    assert not make_class_maps(truths, 3, (4, 4), 8).any()


def test_levels_of_points():
    assert make_grid((1, 2), (1, 1)).levels.tolist() == [0, 0, 1]


@pytest.mark.parametrize("sides", [(10.0, 10), (100, 40), (3, 300), (640, 480)])
@pytest.mark.parametrize("min_iou", [0.3, 0.7])
def test_radius_is_that_of_mmdet(sides, min_iou):
    found = gaussian_radius(torch.tensor(sides, dtype=torch.float64), min_iou)
    assert found.item() == pytest.approx(mmdet_radius(sides[::-1], min_iou), rel=1e-9)


def test_corner_targets_by_hand():
    """A box of 80 pixels with corners at (10, 18) and (90, 98), on 16 x 16 points 8 apart."""
    targets = make_corner_targets(make_grid((16, 16)), truths_of([[10.0, 18, 90, 98]]), 0.7)
    # Of the three cases, both corners inside has the least r: (80 - 2r)^2 / 6400 = 0.7.
    radius = (80 - 80 * math.sqrt(0.7)) / 2
    sigma = (2 * radius + 1) / 6
    heat = targets.heat[0, :, 0].view(16, 16)
    assert heat[2, 1] == 1  # the point (8, 16), nearest to the corner
    assert targets.owned[0, :, 0].nonzero().tolist() == [[2 * 16 + 1]]
    assert targets.offsets[0, 2 * 16 + 1, :2].tolist() == [0.25, 0.25]
    assert heat[2, 2].item() == pytest.approx(math.exp(-(36 + 4) / (2 * sigma**2)))  # (16, 16)
    assert heat[3, 1].item() == pytest.approx(math.exp(-(4 + 36) / (2 * sigma**2)))
    assert heat[3, 2] == 0  # 8.5 pixels away
    assert (heat > 0).sum() == 3
    # The bottom right corner is as far from (88, 96).
    assert targets.owned[0, :, 1].nonzero().tolist() == [[12 * 16 + 11]]
    assert targets.offsets[0, 12 * 16 + 11, 2:].tolist() == [0.25, 0.25]


def test_every_level_learns_every_corner_and_a_shared_point_the_last():
    grid = make_grid((8, 8), (4, 4))
    targets = make_corner_targets(grid, truths_of([[1.0, 2, 40, 40], [3, 1, 50, 30]]), 0.7)
    owned = targets.owned[0, :, 0]
    assert owned.nonzero().flatten().tolist() == [0, 64]
    assert targets.offsets[0, 0, :2].tolist() == [3 / 8, 1 / 8]
    assert targets.offsets[0, 64, :2].tolist() == [3 / 16, 1 / 16]


def test_corners_find_usable_points_alone():
    grid = make_grid((4, 4))
    usable = (grid.points < 20).all(1)[None]
    truths = truths_of([[2.0, 2, 31, 31]])
    targets = make_corner_targets(grid._replace(usable=usable), truths, 0.7)
    assert targets.owned[0, :, 1].nonzero().tolist() == [[2 * 4 + 2]]
    assert not targets.heat[0, ~usable[0]].any()


def test_class_maps_by_hand():
    """In each cell of a class the smallest box of it counts, up to the cell of its last pixel."""
    boxes = [[0.0, 0, 24, 15], [8, 8, 15, 15], [17, 17, 31, 31]]
    maps = make_class_maps(truths_of(boxes, labels=[[1, 1, 0]]), 2, (4, 4), 8)[0]
    large, small, other = 1 / 360, 1 / 49, 1 / 196
    wanted = torch.tensor([[large] * 4, [large, small, large, large], [0] * 4, [0] * 4])
    torch.testing.assert_close(maps[1], wanted)
    wanted = torch.zeros(4, 4)
    wanted[2:, 2:] = other
    torch.testing.assert_close(maps[0], wanted)


def test_boxes_without_area_weigh_as_a_pixel():
    maps = make_class_maps(truths_of([[9.0, 9, 9, 9]]), 1, (2, 2), 8)
    assert maps.flatten().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("corner", "found"),
    [
        ((9.0, 1.0), (2, 1)),  # the cells of columns 1 and 2, rows 0 and 1
        ((15.9, 7.9), (2, 1)),
        ((0.0, 0.0), (0, 0)),  # of equal cells the first
        ((31.9, 23.9), (3, 2)),  # the last pair of columns and rows
        ((1000.0, 0.0), (2, 1)),
    ],
)
def test_corners_go_to_the_likeliest_of_four_cells(corner, found):
    scores = torch.zeros(3, 4)
    scores[1, 2], scores[2, 3] = 5, 9
    offsets = torch.stack((torch.full((3, 4), 0.25), torch.full((3, 4), -0.5)))
    x, y = found
    moved = find_corners(scores, offsets, torch.tensor([corner]), 8)
    assert moved.tolist() == [[(x + 0.25) * 8, (y - 0.5) * 8]]


def test_corners_on_maps_of_one_row_or_cell():
    offsets = torch.zeros(2, 1, 3)
    moved = find_corners(torch.tensor([[0.0, 1, 2]]), offsets, torch.tensor([[9.0, 30]]), 8)
    assert moved.tolist() == [[16, 0]]
    moved = find_corners(torch.ones(1, 1), offsets[..., :1], torch.tensor([[9.0, 30]]), 8)
    assert moved.tolist() == [[0, 0]]
