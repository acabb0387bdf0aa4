"""Colours and patterns of backgrounds and fills."""

import colorsys

import cv2
import numpy as np

Range = tuple[float, float]
PATTERNS = ("plain", "gradient", "stripes", "checks", "dots", "cloud")


def random_colour(
    rng: np.random.Generator, saturation: Range, value: Range, hue: Range = (0.0, 1.0)
) -> np.ndarray:
    """Returns an RGB colour, `(3,)`, 0-255, of hue, saturation and value (0-1) in given ranges."""
    shade = rng.uniform(*hue) % 1
    return 255 * np.array(colorsys.hsv_to_rgb(shade, rng.uniform(*saturation), rng.uniform(*value)))


def vary_colour(rng: np.random.Generator, colour: np.ndarray, least: int, most: int) -> np.ndarray:
    """Returns the colour lightened or darkened by `least` to `most` levels, its hue a bit off."""
    step = rng.uniform(least, most) * (1 if colour.sum() < 3 * 128 else -1)
    return np.clip(colour + step + rng.uniform(-least / 2, least / 2, 3), 0, 255)


def lattice_noise(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Random values on lattices of several scales, smoothly interpolated and summed.

    The coarsest lattice has cells of `scale` pixels; the result is `(height, width)`, float32, 0-1.
    """
    total, weight = np.zeros((height, width), dtype=np.float32), 1.0
    weights = 0.0
    while (scale >= 3 and weight > 0.1) or not weights:
        lattice = rng.random((int(height / scale) + 2, int(width / scale) + 2), dtype=np.float32)
        total += weight * cv2.resize(lattice, (width, height), interpolation=cv2.INTER_CUBIC)
        weights += weight
        weight, scale = weight / 2, scale / 2
    return np.clip(total / weights, 0, 1)


def texture(rng: np.random.Generator, height: int, width: int, scale: float) -> np.ndarray:
    """Draws one of `PATTERNS`, `(height, width)`, float32, 0-1; features have `scale` pixels."""
    kind, scale = str(rng.choice(PATTERNS)), max(4.0, scale)
    if kind == "plain":
        return np.zeros((height, width), dtype=np.float32)
    if kind == "cloud":
        return lattice_noise(rng, height, width, scale)
    angle, origin = rng.uniform(0, 2 * np.pi), rng.uniform(0, 64, 2)
    x = (np.arange(width, dtype=np.float32) + np.float32(origin[0]))[None, :]
    y = (np.arange(height, dtype=np.float32) + np.float32(origin[1]))[:, None]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == "gradient":
        pattern = (u - u.min()) / max(1.0, float(np.ptp(u)))
    elif kind == "stripes":
        pattern = _wave(u, max(6.0, scale / 2))
    elif kind == "checks":
        pattern = 0.5 + 2 * (_wave(u, scale) - 0.5) * (_wave(v, scale) - 0.5)
    else:
        period = max(8.0, scale / 2)
        distance = np.hypot(u % period - period / 2, v % period - period / 2)
        pattern = np.clip(0.5 + (period / 3 - distance) / 2, 0, 1)
    return pattern.astype(np.float32)


def _wave(position: np.ndarray, period: float) -> np.ndarray:
    """Alternates 0 and 1 with the given period in pixels, its edges two pixels soft."""
    return np.clip(0.5 + (np.abs(position % period - period / 2) - period / 4) / 2, 0, 1)
