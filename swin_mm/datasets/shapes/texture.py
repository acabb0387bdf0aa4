"""Textures and colours for backgrounds and fills, in integer arithmetic."""

import numpy as np

from swin_mm.datasets.shapes.bits import BitStream, byte_grid
from swin_mm.datasets.shapes.geometry import (
    ONE_BITS,
    SUBPIXELS,
    length,
    pixel_centres,
    random_direction,
)

Colour = tuple[int, int, int]


HUES = 6 * 256  # steps around the circle, from red to red


def random_colour(
    bits: BitStream,
    saturation: tuple[int, int],
    value: tuple[int, int],
    hue: tuple[int, int] = (0, HUES - 1),
) -> Colour:
    """Returns an RGB colour of saturation, value (0-255) and hue (see `HUES`) in given ranges."""
    shade = bits.between(*hue)
    sat = bits.between(*saturation)
    val = bits.between(*value)
    channels = []
    for shift in (0, 4, 2):  # red, green and blue stand a third of the circle apart
        position = (shade + shift * 256) % HUES
        # Rises over one sixth, stays for two, falls over one, stays at zero for two.
        strength = max(0, min(255, abs(position - 3 * 256) - 256))
        channels.append(val * (255 * 255 - sat * (255 - strength)) // (255 * 255))
    return channels[0], channels[1], channels[2]


def vary_colour(bits: BitStream, colour: Colour, least: int, most: int) -> Colour:
    """Returns the colour lightened or darkened by `least` to `most` levels, its hue a bit off."""
    step = bits.between(least, most) * (1 if sum(colour) < 3 * 128 else -1)
    varied = [max(0, min(255, c + step + bits.between(-least // 2, least // 2))) for c in colour]
    return varied[0], varied[1], varied[2]


def paint(pattern: np.ndarray, low: Colour, high: Colour) -> np.ndarray:
    """Turns a pattern (`(H, W)`, 0-255) into RGB between two colours: `(H, W, 3)`, int32."""
    start, end = np.array(low, dtype=np.int32), np.array(high, dtype=np.int32)
    steps = np.arange(256, dtype=np.int32)[:, None]
    return (start + ((end - start) * steps + 127) // 255)[pattern]


def random_pattern(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    """Draws one of the patterns.

    Args:
        bits: Where the choice and its parameters come from.
        height: Rows.
        width: Columns.
        scale: Size of the coarsest feature, in pixels.

    Returns:
        `(height, width)`, int32, values 0-255.
    """
    return bits.choice((_plain, _gradient, _stripes, _checks, _dots, cloud))(
        bits, height, width, max(4, scale)
    )


def cloud(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    """Value noise: random bytes on lattices of several scales, smoothly interpolated and summed."""
    total = np.zeros((height, width), dtype=np.int32)
    weight, weights = 128, 0
    while scale >= 3 and weight >= 16:
        total += weight * _lattice(bits.word(), height, width, scale)
        weights += weight
        weight, scale = weight // 2, scale // 2
    return total // max(1, weights)


def _lattice(key: int, height: int, width: int, scale: int) -> np.ndarray:
    lattice = byte_grid(key, height // scale + 2, width // scale + 2, planes=1)[..., 0]
    lattice = lattice.astype(np.int32)
    row, column = np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32)
    rows = _interpolate(lattice, row // scale, row % scale, scale)
    return _interpolate(rows.T, column // scale, column % scale, scale).T


def _interpolate(
    values: np.ndarray, cell: np.ndarray, offset: np.ndarray, scale: int
) -> np.ndarray:
    """Interpolates along the first axis with a smooth step (3 t^2 - 2 t^3, in 1/256)."""
    t = offset * 256 // scale
    t = (t * t * (768 - 2 * t) >> 16)[:, None]
    return (values[cell] * (256 - t) + values[cell + 1] * t) >> 8


def _plain(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    return np.zeros((height, width), dtype=np.int32)


def _gradient(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    u, _ = _rotated_grid(bits, height, width)
    return (u - u.min()) * 255 // max(1, int(u.max() - u.min()))


def _stripes(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    u, _ = _rotated_grid(bits, height, width)
    return _wave(u, max(6, scale // 2))


def _checks(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    u, v = _rotated_grid(bits, height, width)
    first, second = _wave(u, scale) - 128, _wave(v, scale) - 128
    return 128 + first * second // 129


def _dots(bits: BitStream, height: int, width: int, scale: int) -> np.ndarray:
    u, v = _rotated_grid(bits, height, width)
    period = max(8, scale // 2) * SUBPIXELS
    x, y = u % period - period // 2, v % period - period // 2
    return np.clip(128 + (period // 3 - length(x, y)) * 8, 0, 255)


def _rotated_grid(bits: BitStream, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns coordinates along and across a random direction, in sixteenths of a pixel."""
    cos, sin = random_direction(bits)
    x = pixel_centres(0, width)[None, :] + bits.below(1024)
    y = pixel_centres(0, height)[:, None] + bits.below(1024)
    return (x * cos + y * sin) >> ONE_BITS, (y * cos - x * sin) >> ONE_BITS


def _wave(position: np.ndarray, period: int) -> np.ndarray:
    """Alternates 0 and 255 with the given period in pixels, its edges two pixels soft."""
    period *= SUBPIXELS
    phase = position % period
    return np.clip(128 + (abs(phase - period // 2) - period // 4) * 8, 0, 255)
