"""The outlines of the shapes, as signed distances in integer arithmetic.

Lengths are in sixteenths of a pixel (`SUBPIXELS`), directions and ratios in units of `1 / ONE`.
Integers (and a correctly rounded square root) make every mask the same on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np

from swin_mm.datasets.shapes.bits import BitStream

SUBPIXELS = 16
ONE_BITS = 14
ONE = 1 << ONE_BITS

# Unit vectors at multiples of 120 and 72 degrees, times ONE and rounded.
TRIANGLE_NORMALS = ((0, 16384), (14189, -8192), (-14189, -8192))
STAR_NORMALS = ((0, -16384), (15582, -5063), (9630, 13255), (-9630, 13255), (-15582, -5063))
COS_72 = 5063
COS_45 = 11585


@dataclass(frozen=True)
class Outline:
    """A shape in the plane.

    Attributes:
        kind: Name of the class, or `"stroke"` for a thin bar of no class.
        x: Centre in image coordinates, sixteenths of a pixel.
        y: Likewise.
        radius: Of the circumscribed circle, sixteenths of a pixel.
        direction: `(cos, sin)` of the rotation, times `ONE`.
        ratio: Hole to radius of a ring, arm's half width to half length of a cross or stroke, times
            `ONE`.
    """

    kind: str
    x: int
    y: int
    radius: int
    direction: tuple[int, int]
    ratio: int

    def depth(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Measures how deep inside the shape the pixels of a window are.

        Args:
            top: First row of the window, in pixels.
            left: First column.
            height: Rows.
            width: Columns.

        Returns:
            `(height, width)`, int32: distance of pixel centres from the nearest edge in sixteenths
            of a pixel, negative outside (and there too small in magnitude near corners).
        """
        dx = pixel_centres(left, width)[None, :] - self.x
        dy = pixel_centres(top, height)[:, None] - self.y
        cos, sin = self.direction
        u = (dx * cos + dy * sin) >> ONE_BITS
        v = (dy * cos - dx * sin) >> ONE_BITS
        return _DEPTHS[self.kind](u, v, self.radius, self.ratio)


def pixel_centres(start: int, count: int) -> np.ndarray:
    """Returns the centres of `count` pixels along an axis, in sixteenths of a pixel, int32.

    Their products with directions fit in 32 bits for sides of up to 4096 pixels.
    """
    return np.arange(start, start + count, dtype=np.int32) * SUBPIXELS + SUBPIXELS // 2


def random_direction(bits: BitStream) -> tuple[int, int]:
    """Returns `(cos, sin)`, times `ONE`, of a random angle: the direction of a point in a disc."""
    while True:
        x, y = bits.between(-ONE, ONE), bits.between(-ONE, ONE)
        square = x * x + y * y
        if ONE * ONE // 16 <= square <= ONE * ONE:  # near the centre, directions are coarse
            distance = math.isqrt(square)
            return x * ONE // distance, y * ONE // distance


def random_tilt(bits: BitStream, tilt: int) -> tuple[int, int]:
    """Returns `(cos, sin)`, times `ONE`, of an angle whose sine is at most `tilt` per cent.

    At 100, it is any angle.
    """
    if tilt == 100:
        return random_direction(bits)
    limit = ONE * tilt // 100
    sine = bits.between(-limit, limit)
    return math.isqrt(ONE * ONE - sine * sine), sine


def random_radius(bits: BitStream, low: int, high: int) -> int:
    """Returns a length in `[low, high]`, near log-uniform: steps of an eighth, evenly likely."""
    steps = [low]
    while steps[-1] < high:
        steps.append(min(high, steps[-1] * 9 // 8 + 1))
    step = bits.below(max(1, len(steps) - 1))
    return bits.between(steps[step], steps[min(step + 1, len(steps) - 1)])


def length(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns the rounded-down length of vectors."""
    # The square root of a double is correctly rounded on every machine, unlike np.hypot.
    u, v = u.astype(np.float64), v.astype(np.float64)
    return np.sqrt(u * u + v * v).astype(np.int32)


def _half_planes(u: np.ndarray, v: np.ndarray, normals: tuple, distance: int) -> np.ndarray:
    """Returns `(planes, H, W)`: how far each pixel is on the inner side of each line."""
    return np.stack([distance - ((u * nx + v * ny) >> ONE_BITS) for nx, ny in normals])


def _circle(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    return radius - length(u, v)


def _ring(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    distance = length(u, v)
    return np.minimum(radius - distance, distance - (radius * ratio >> ONE_BITS))


def _triangle(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    return _half_planes(u, v, TRIANGLE_NORMALS, radius // 2).min(axis=0)


def _square(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    return (radius * COS_45 >> ONE_BITS) - np.maximum(abs(u), abs(v))


def _star(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    # A point is in the pentagram if it is on the inner side of at least four of its five lines.
    planes = _half_planes(u, v, STAR_NORMALS, radius * COS_72 >> ONE_BITS)
    return np.partition(planes, 1, axis=0)[1]


def _bar(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    return np.minimum(radius - abs(u), (radius * ratio >> ONE_BITS) - abs(v))


def _cross(u: np.ndarray, v: np.ndarray, radius: int, ratio: int) -> np.ndarray:
    arm = radius * 15 // 16  # the arm's corners stay within the radius
    return np.maximum(_bar(u, v, arm, ratio), _bar(v, u, arm, ratio))


_DEPTHS = {
    "circle": _circle,
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "stroke": _bar,
}
