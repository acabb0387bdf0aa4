"""Masks against floating-point geometry: matplotlib's point-in-polygon test and distances."""

import math

import numpy as np
import pytest
from matplotlib.path import Path

from swin_mm.datasets.shapes.bits import BitStream
from swin_mm.datasets.shapes.geometry import (
    ONE,
    SUBPIXELS,
    Outline,
    random_direction,
    random_radius,
    random_tilt,
)
from swin_mm.datasets.shapes.presets import CLASSES

HEIGHT, WIDTH = 90, 110
DIRECTIONS = {
    "upright": (ONE, 0),
    "3-4-5": (ONE * 4 // 5, ONE * 3 // 5),
    "turned": (-ONE * 5 // 13, -ONE * 12 // 13),
}


def regular(corners: int, radius: float, start: float = -90) -> np.ndarray:
    """Corners of a regular polygon, the first at `start` degrees: (corners, 2)."""
    angles = np.deg2rad(start + 360 / corners * np.arange(corners))
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def star(radius: float) -> np.ndarray:
    inner = radius * math.cos(math.radians(72)) / math.cos(math.radians(36))
    return np.stack([regular(5, radius), regular(5, inner, start=-54)], axis=1).reshape(10, 2)


def cross(radius: float, ratio: float) -> np.ndarray:
    a, b = radius * 15 / 16, radius * 15 / 16 * ratio
    return np.array(
        [(a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b)]
        + [(-a, -b), (-b, -b), (-b, -a), (b, -a), (b, -b), (a, -b)]
    )


def expected_inside(kind: str, u: np.ndarray, v: np.ndarray, radius: float, ratio: float):
    """Which points (pixels, in the shape's own axes) lie in the shape, in floating point."""
    distance = np.hypot(u, v)
    if kind == "circle":
        return distance <= radius
    if kind == "ring":
        return (distance <= radius) & (distance >= radius * ratio)
    half = radius * math.sqrt(0.5)
    bar = radius * ratio
    corners = {
        "triangle": regular(3, radius),
        "square": np.array([(-half, -half), (half, -half), (half, half), (-half, half)]),
        "star": star(radius),
        "cross": cross(radius, ratio),
        "stroke": np.array([(-radius, -bar), (radius, -bar), (radius, bar), (-radius, bar)]),
    }[kind]
    return Path(corners).contains_points(np.stack([u, v], -1).reshape(-1, 2)).reshape(u.shape)


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("radius", [6.5, 37.25])
@pytest.mark.parametrize("kind", [*CLASSES, "stroke"])
def test_depth_is_positive_inside_and_negative_outside(kind, radius, direction):
    x, y, ratio = 53.4375, 41.0625, 0.375  # exact in sixteenths
    outline = Outline(
        kind,
        int(x * SUBPIXELS),
        int(y * SUBPIXELS),
        int(radius * SUBPIXELS),
        direction,
        int(ratio * ONE),
    )
    depth = outline.depth(0, 0, HEIGHT, WIDTH)
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5 - x, np.arange(HEIGHT) + 0.5 - y)
    cos, sin = direction[0] / ONE, direction[1] / ONE
    u, v = columns * cos + rows * sin, rows * cos - columns * sin
    expected = expected_inside(kind, u, v, radius, ratio)

    assert depth.shape == (HEIGHT, WIDTH) and depth.dtype == np.int32
    sure = abs(depth) > 3  # beyond three sixteenths of a pixel rounding cannot matter
    assert sure.mean() > 0.98
    np.testing.assert_array_equal((depth > 0)[sure], expected[sure])


@pytest.mark.parametrize("kind", CLASSES)
def test_window_is_a_part_of_the_whole(kind):
    outline = Outline(kind, 800, 700, 400, DIRECTIONS["3-4-5"], ONE // 2)
    whole = outline.depth(-20, -10, 120, 130)
    part = outline.depth(5, 7, 30, 40)
    np.testing.assert_array_equal(part, whole[25:55, 17:57])


def test_depth_measures_sixteenths_of_a_pixel():
    circle = Outline("circle", 40 * SUBPIXELS, 30 * SUBPIXELS, 20 * SUBPIXELS, (ONE, 0), 0)
    depth = circle.depth(0, 0, 60, 80)
    # The centre of pixel (30, 40) lies half a pixel from the circle's centre on both axes.
    assert depth[30, 40] == 20 * 16 - math.floor(math.hypot(8, 8)) == 309
    assert depth[30, 70] == 20 * 16 - math.floor(math.hypot(30.5 * 16, 8))


def test_directions_are_unit_vectors_all_around():
    bits = BitStream(0)
    directions = np.array([random_direction(bits) for _ in range(4000)]) / ONE
    np.testing.assert_allclose(np.hypot(*directions.T), 1, atol=4e-4)
    sectors = (
        np.floor(np.arctan2(directions[:, 1], directions[:, 0]) / (np.pi / 6)).astype(int) % 12
    )
    counts = np.bincount(sectors, minlength=12)
    assert counts.min() > 4000 / 12 * 0.8


@pytest.mark.parametrize(("low", "high"), [(6, 72), (96, 1152), (10, 10), (10, 11)])
def test_radius_spans_its_range(low, high):
    bits = BitStream(low, high)
    drawn = [random_radius(bits, low, high) for _ in range(4000)]
    assert min(drawn) == low and max(drawn) == high
    if high > 10 * low:  # log-uniform: half of all radii lie below the geometric mean
        below = np.mean(np.array(drawn) < math.sqrt(low * high))
        assert 0.4 < below < 0.6


@pytest.mark.parametrize("tilt", [0, 35, 99])
def test_tilted_directions_stay_near_the_upright(tilt):
    directions = [random_tilt(BitStream(seed), tilt) for seed in range(300)]
    sines = [abs(sin) for _, sin in directions]
    assert all(cos > 0 for cos, _ in directions)
    assert 0.9 * ONE * tilt // 100 <= max(sines) <= ONE * tilt // 100
    assert all(abs(math.hypot(cos, sin) - ONE) < 2 for cos, sin in directions)


def test_a_tilt_of_100_is_any_direction():
    directions = [random_tilt(BitStream(seed), 100) for seed in range(300)]
    assert {(cos > 0, sin > 0) for cos, sin in directions} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
