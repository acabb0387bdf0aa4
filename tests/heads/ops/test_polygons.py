"""Polygons drawn in boxes, against pycocotools, which mmdet draws them with."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import PolygonMasks, mask_target
from mmengine.config import ConfigDict

from swin_mm.heads.ops.polygons import draw_polygons, pack_polygons

HEIGHT, WIDTH = 200, 260


def spiky(random, corners, spread):
    return random.uniform(0, 1, 2) * (WIDTH, HEIGHT) + random.normal(0, spread, (corners, 2))


KINDS = {
    "blobs": lambda random: spiky(random, random.integers(3, 40), 20),
    "beyond-the-image": lambda random: random.uniform(-30, 290, (random.integers(3, 12), 2)),
    "whole-pixels": lambda random: spiky(random, random.integers(3, 20), 20).round(),
    "corners-twice": lambda random: np.repeat((spiky(random, 7, 20) * 2).round() / 2, 2, axis=0),
    "slivers": lambda random: spiky(random, 3, 20) * (1, 0.01) + (0, 90),
    "on-one-line": lambda random: np.repeat(spiky(random, 4, 20)[:, :1], 2, axis=1),
}


def draw(objects, index, boxes, size):
    boxes, index = torch.from_numpy(boxes), torch.from_numpy(index)
    masks = PolygonMasks(objects, 10**6, 10**6)  # so large that boxes are not clipped
    expected = mask_target([boxes], [index], [masks], ConfigDict(mask_size=size))
    found = draw_polygons(pack_polygons(objects, torch.device("cpu")), index, boxes, size)
    assert found.dtype == torch.bool
    return found, expected.bool()


@pytest.mark.parametrize("is_rounded", [False, True])
@pytest.mark.parametrize("size", [(28, 28), (14, 23)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_those_of_pycocotools(kind, size, is_rounded):
    random = np.random.default_rng(0)
    filled = 0
    for _ in range(4):
        objects = [
            [KINDS[kind](random).reshape(-1) for _ in range(random.integers(1, 4))]
            for _ in range(6)
        ]
        corners = random.uniform(0, 1, (48, 2)) * (WIDTH, HEIGHT)
        boxes = np.hstack([corners, corners + random.exponential(40, (48, 2))]).astype(np.float32)
        boxes = boxes.round() if is_rounded else boxes
        found, expected = draw(objects, random.integers(0, 6, 48), boxes, size)
        assert torch.equal(found, expected)
        filled += found.float().mean()
    assert filled > 0 or kind == "on-one-line"


def test_a_rectangle_fills_its_cells():
    square = np.array([2, 1, 6, 1, 6, 4, 2, 4], dtype=np.float64)
    box = torch.tensor([[0.0, 0, 8, 5]])
    found = draw_polygons(pack_polygons([[square]], box.device), torch.tensor([0]), box, (5, 8))
    expected = torch.zeros(1, 5, 8, dtype=torch.bool)
    expected[0, 1:4, 2:6] = True
    assert torch.equal(found, expected)


def test_parts_that_overlap_are_a_union():
    """Of one polygon, what is inside twice is outside; of two, it is inside."""
    inner, outer = np.array([2.0, 2, 6, 2, 6, 6, 2, 6]), np.array([0.0, 0, 8, 0, 8, 8, 0, 8])
    box = np.array([[0, 0, 8, 8]], dtype=np.float32)
    found, expected = draw([[outer, inner]], np.array([0]), box, (8, 8))
    assert torch.equal(found, expected) and found.all()


def test_nothing_to_draw():
    packed = pack_polygons([], torch.device("cpu"))
    assert draw_polygons(packed, torch.zeros(0).long(), torch.zeros(0, 4), (5, 6)).shape == (
        0,
        5,
        6,
    )


@pytest.mark.parametrize("numbers", [4, 7])
def test_a_polygon_without_three_corners_is_refused(numbers):
    with pytest.raises(ValueError, match=f"three corners at least, got {numbers} numbers"):
        pack_polygons([[np.zeros(numbers)]], torch.device("cpu"))


@pytest.mark.parametrize(
    ("rise", "run"), [((0.8, 12.4), 5), ((0.8, 13.2), 5), ((0.8, 14.0), 9)], ids=str
)
def test_an_edge_that_a_quotient_places_one_step_too_late(rise, run):
    """In float64, 12.5 / (25 / 58) exceeds 29, so that rounded up it is 30 steps; C counts 29."""
    top, bottom = rise
    triangle = np.array([0, top, run, bottom, 0, bottom])
    boxes = np.array([[0, 0, 16, 16]], dtype=np.float32)
    found, expected = draw([[triangle]], np.array([0]), boxes, (16, 16))
    assert torch.equal(found, expected) and found.any()
