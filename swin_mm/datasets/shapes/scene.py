"""Draws one image of the built-in data, with the visible part of every shape.

Every outline is a polygon, filled by OpenCV at four times the image's size: a pixel belongs to the
shape where at least half of it is covered, and edges are soft in the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from swin_mm.datasets.shapes.presets import CLASSES, Preset, get_preset
from swin_mm.datasets.shapes.texture import lattice_noise, random_colour, texture, vary_colour

PLACEMENTS = 12  # positions tried for one shape before it is given up
SUPERSAMPLING = 4
SHADOW_REACH = 3  # pixels
HUE_SPREAD = 0.033  # of the colour circle, to both sides, where a class has a hue of its own
Outline = Sequence[np.ndarray]  # polygons of (corners, 2) points; where two overlap, is a hole


@dataclass(frozen=True)
class Scene:
    """An image and the objects in it.

    Attributes:
        image: `(H, W, 3)`, uint8, RGB.
        masks: `(num_shapes, H, W)`, bool: the part of each shape that no other shape covers.
        classes: `(num_shapes,)`, int64: index into `CLASSES`.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: np.ndarray

    def boxes(self) -> np.ndarray:
        """Returns the tight boxes of the visible parts, `(num_shapes, 4)`, int64.

        A box is `(left, top, right, bottom)` in pixels, right and bottom exclusive.
        """
        rects = [cv2.boundingRect(mask.astype(np.uint8)) for mask in self.masks]
        boxes = np.array(rects, dtype=np.int64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def label_map(self) -> np.ndarray:
        """Returns the semantic map, `(H, W)`, uint8: 0 is background, `1 + class` elsewhere."""
        return (self.masks * (1 + self.classes)[:, None, None]).sum(0).astype(np.uint8)


def draw_scene(seed: int, preset: str = "standard") -> Scene:
    """Draws the image of a seed, which is always the same.

    Args:
        seed: Non-negative.
        preset: A name in `PRESETS`.

    Raises:
        ValueError: Unknown preset or negative seed.
    """
    if seed < 0:
        raise ValueError(f"a scene's seed must not be negative, got {seed=}")
    settings = get_preset(preset)
    rng = np.random.default_rng(seed)
    painter = Painter(rng, settings)
    for _ in range(rng.integers(settings.strokes + 1)):
        painter.paint_stroke()
    is_empty = rng.random() < settings.empty / 100
    count = 0 if is_empty else int(rng.integers(settings.shapes[0], settings.shapes[1] + 1))
    classes = []
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        outline = painter.claim(label)
        if outline is not None:
            painter.paint(outline, label)
            classes.append(label)
    masks = painter.owner == np.arange(len(classes))[:, None, None]  # (num_shapes, H, W)
    return Scene(painter.expose(), masks, np.array(classes, dtype=np.int64))


def outline_of(kind: str, radius: float, ratio: float) -> list[np.ndarray]:
    """Returns the polygons of an upright shape around the origin, in pixels.

    `radius` is of the circumscribed circle, `ratio` is hole to radius of a ring, and half width to
    half length of a cross's arms.
    """

    def regular(corners: int, radius: float, start: float) -> np.ndarray:
        angles = np.deg2rad(start + 360 / corners * np.arange(corners))
        return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    if kind == "star":
        inner = radius * np.cos(np.deg2rad(72)) / np.cos(np.deg2rad(36))
        tips, notches = regular(5, radius, -90), regular(5, inner, -54)
        return [np.stack([tips, notches], axis=1).reshape(10, 2)]
    if kind == "cross":
        a = radius / np.hypot(1, ratio)
        b = a * ratio
        arm = np.array([(a, -b), (a, b), (b, b)])  # of the right arm, then turned by 90 degrees
        turn = np.array([(0, 1), (-1, 0)])
        turns = [np.linalg.matrix_power(turn, k) for k in range(4)]
        return [np.concatenate([arm @ t for t in turns])]
    corners, start = {"triangle": (3, -90), "square": (4, -45)}.get(kind, (72, 0))
    radii = (radius, radius * ratio) if kind == "ring" else (radius,)
    return [regular(corners, r, start) for r in radii]


def coverage(outline: Outline, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Returns how much of each pixel of a window lies inside polygons: `(height, width)`, 0-255.

    OpenCV fills the fine pixels on an edge too, so that shapes are about 0.1 pixels too large.
    """
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), dtype=np.uint8)
    # OpenCV's coordinates name the centres of pixels, in sixteenths here; ours name corners.
    points = [((p - (left, top)) * SUPERSAMPLING - 0.5) * 16 for p in outline]
    cv2.fillPoly(fine, [np.round(p).astype(np.int32) for p in points], 255, shift=4)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)


def _window(
    outline: Outline, margin: int, shape: Sequence[int] | None = None
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels (of an image) that hold an outline and a margin."""
    points = np.concatenate(outline)
    left, top = (int(v) for v in np.floor(points.min(0)).astype(int) - margin)
    right, bottom = (int(v) for v in np.ceil(points.max(0)).astype(int) + margin)
    if shape is not None:
        top, left = max(top, 0), max(left, 0)
        bottom, right = min(bottom, shape[0]), min(right, shape[1])
    return top, left, bottom - top, right - left


class Painter:
    """Paints the background of a scene, and shapes on it.

    Attributes:
        canvas: `(H, W, 3)`, float32, RGB.
        owner: `(H, W)`, number of the shape that shows in each pixel; -1 for none.
    """

    def __init__(self, rng: np.random.Generator, preset: Preset) -> None:
        self._rng, self._preset = rng, preset
        height, width = (int(side) for side in rng.choice(preset.sides, 2))
        size = min(height, width)
        self._ground = ground = random_colour(rng, saturation=(0.04, 0.6), value=(0.23, 0.86))
        noise = lattice_noise(rng, height, width, size / rng.choice((2, 3, 5, 8)))[..., None]
        cloud = ground + noise * (vary_colour(rng, ground, 20, 60) - ground)
        pattern = texture(rng, height, width, size / rng.choice((3, 5, 8)))[..., None]
        veil = ground + pattern * (vary_colour(rng, ground, 30, 80) - ground)
        share = rng.uniform(0.15, 0.8)
        self.canvas = (cloud + share * (veil - cloud)).astype(np.float32)
        angle = rng.uniform(0, 2 * np.pi)
        self._light = np.array([np.cos(angle), np.sin(angle)])  # direction it comes from
        self.owner = np.full((height, width), -1, dtype=np.int32)
        self._whole_areas: list[int] = []  # pixels of each shape as if nothing hid it

    def _place(self, outline: Outline, least: float, most: float) -> list[np.ndarray]:
        """An outline anywhere in the image, turned by an angle (radians) from a range."""
        angle = self._rng.uniform(least, most)
        cos, sin = np.cos(angle), np.sin(angle)
        centre = self._rng.uniform((0, 0), self.owner.shape[::-1])
        return [points @ np.array([(cos, sin), (-sin, cos)]) + centre for points in outline]

    def paint_stroke(self) -> None:
        """Paints a thin bar that is no object."""
        a = self._rng.uniform(12, 60)
        b = a / self._rng.uniform(12, 24)
        bar = np.array([(-a, -b), (a, -b), (a, b), (-a, b)])
        self.paint(self._place([bar], 0, np.pi), None)

    def claim(self, label: int) -> list[np.ndarray] | None:
        """Finds a place that leaves every shape visible enough; the placed outline, or None."""
        rng, owner, count = self._rng, self.owner, len(self._whole_areas)
        radius = np.exp(rng.uniform(*np.log(self._preset.radius)))
        ratio = rng.uniform(0.40, 0.65) if CLASSES[label] == "ring" else rng.uniform(0.28, 0.42)
        shape = outline_of(CLASSES[label], radius, ratio)
        tilt = np.pi if self._preset.tilt == 100 else np.arcsin(self._preset.tilt / 100)
        visible = np.bincount(owner[owner >= 0], minlength=count)
        for _ in range(PLACEMENTS):
            outline = self._place(shape, -tilt, tilt)
            window = _window(outline, margin=0)
            whole = coverage(outline, *window) >= 128
            top, left, height, width = _window(outline, 0, owner.shape)
            patch = owner[top : top + height, left : left + width]
            mask = whole[top - window[0] :, left - window[1] :][:height, :width]
            hidden = np.bincount(patch[mask & (patch >= 0)], minlength=count)
            left_over = np.array([*(visible - hidden), mask.sum()])
            wholes = np.array([*self._whole_areas, whole.sum()])
            if (100 * left_over >= self._preset.min_visible * wholes).all() and left_over[-1]:
                patch[mask] = count
                self._whole_areas.append(int(wholes[-1]))
                return outline
        return None

    def paint(self, outline: Outline, label: int | None) -> None:
        """Paints a shape with its shadow; `label` is its class, None for a stroke."""
        window = _window(outline, SHADOW_REACH + 3, self.canvas.shape)
        top, left, height, width = window
        if height <= 0 or width <= 0:
            return
        patch = self.canvas[top : top + height, left : left + width]
        dropped = [points - SHADOW_REACH * self._light for points in outline]
        shadow = cv2.blur(coverage(dropped, *window), (3, 3)).astype(np.float32) / 255
        patch *= 1 - 0.4 * shadow[..., None]
        alpha = coverage(outline, *window)
        fill = self._fill(alpha, outline, top, left, label)
        patch += (fill - patch) * (alpha.astype(np.float32) / 255)[..., None]

    def _fill(
        self, alpha: np.ndarray, outline: Outline, top: int, left: int, label: int | None
    ) -> np.ndarray:
        """Pixels of a shape, `(height, width, 3)`: textured, lit, some with a rim."""
        rng, (height, width) = self._rng, alpha.shape
        colour = self._fill_colour(label)
        points = np.concatenate(outline)
        centre = points.mean(0)
        radius = float(np.linalg.norm(points - centre, axis=1).max())
        pattern = texture(rng, height, width, radius * 2 / rng.integers(2, 5))
        if rng.random() >= self._preset.textured / 100:
            pattern[:] = 0
        fill = colour + pattern[..., None] * (vary_colour(rng, colour, 30, 90) - colour)
        dx = (np.arange(width) + left + 0.5 - centre[0])[None, :]
        dy = (np.arange(height) + top + 0.5 - centre[1])[:, None]
        slope = (dx * self._light[0] + dy * self._light[1]) / radius  # -1..1 across the shape
        fill *= 1 + slope[..., None] * rng.uniform(0, 0.27)
        if rng.random() < 0.6:
            inside = (alpha >= 128).astype(np.uint8)
            framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
            depth = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
            fill[depth <= max(1.0, radius / rng.uniform(8, 14))] *= rng.choice((0.43, 0.59, 1.33))
        return np.clip(fill, 0, 255)

    def _fill_colour(self, label: int | None) -> np.ndarray:
        """A colour that stands out from the ground's, as far as the tries find one."""
        hue, saturation, value = (0.0, 1.0), (0.16, 1.0), (0.2, 1.0)
        if label is not None and self._rng.random() < self._preset.own_hue / 100:
            own = label / len(CLASSES)
            hue, saturation, value = (own - HUE_SPREAD, own + HUE_SPREAD), (0.55, 1.0), (0.35, 1.0)
        for _ in range(PLACEMENTS):
            colour = random_colour(self._rng, saturation, value, hue)
            if np.abs(colour - self._ground).sum() >= self._preset.min_contrast:
                break
        return colour

    def expose(self) -> np.ndarray:
        """Varies brightness, contrast and colour balance, adds noise: `(H, W, 3)`, uint8."""
        rng, shape = self._rng, self.canvas.shape
        shift = rng.uniform(-25, 25) + rng.uniform(-10, 10, 3)
        exposed = (self.canvas - 128) * rng.uniform(0.78, 1.13) + 128 + shift
        grain = rng.random(shape, dtype=np.float32) - rng.random(shape, dtype=np.float32)
        noise = grain * rng.uniform(0, self._preset.noise)
        return np.clip(exposed + noise, 0, 255).astype(np.uint8)
