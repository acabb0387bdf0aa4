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
    return draw_preset(seed, get_preset(preset))


def draw_preset(seed: int, preset: Preset) -> Scene:
    """Draws the image of a seed, as `draw_scene`, with settings that need not have a name."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.choice(preset.sides, 2))
    canvas, ground = _draw_background(rng, height, width)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(preset.strokes + 1)):
        outline = _place(_stroke(rng), rng.uniform(0, np.pi), _position(rng, height, width))
        _paint(rng, canvas, outline, None, ground, light, preset)

    owner = np.full((height, width), -1, dtype=np.int32)  # index of the shape that shows there
    whole_areas: list[int] = []
    classes: list[int] = []
    is_empty = rng.random() < preset.empty / 100
    count = 0 if is_empty else int(rng.integers(preset.shapes[0], preset.shapes[1] + 1))
    for _ in range(count):
        label = int(rng.integers(len(CLASSES)))
        claimed = _claim(rng, label, owner, whole_areas, preset)
        if claimed is not None:
            _paint(rng, canvas, claimed, label, ground, light, preset)
            classes.append(label)

    masks = owner == np.arange(len(classes))[:, None, None]  # (num_shapes, H, W)
    return Scene(_expose(rng, canvas, preset.noise), masks, np.array(classes, dtype=np.int64))


def _regular(corners: int, radius: float, start: float) -> np.ndarray:
    """Corners of a regular polygon, the first at `start` degrees: `(corners, 2)`."""
    angles = np.deg2rad(start + 360 / corners * np.arange(corners))
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def outline_of(kind: str, radius: float, ratio: float) -> list[np.ndarray]:
    """Returns the polygons of an upright shape around the origin, in pixels.

    Args:
        kind: One of `CLASSES`.
        radius: Of the circumscribed circle.
        ratio: Hole to radius of a ring, half width to half length of a cross's arms.

    Returns:
        Polygons of `(corners, 2)` points; where two overlap, there is a hole.
    """
    if kind in ("circle", "ring"):
        radii = (radius, radius * ratio) if kind == "ring" else (radius,)
        return [_regular(72, r, 0) for r in radii]
    if kind == "star":
        inner = radius * np.cos(np.deg2rad(72)) / np.cos(np.deg2rad(36))
        tips, notches = _regular(5, radius, -90), _regular(5, inner, -54)
        return [np.stack([tips, notches], axis=1).reshape(10, 2)]
    if kind == "cross":
        a = radius / np.hypot(1, ratio)
        b = a * ratio
        arm = np.array([(a, -b), (a, b), (b, b)])  # of the right arm, then turned by 90 degrees
        turn = np.array([(0, 1), (-1, 0)])
        turns = [np.linalg.matrix_power(turn, k) for k in range(4)]
        return [np.concatenate([arm @ t for t in turns])]
    return [_regular(3, radius, -90) if kind == "triangle" else _regular(4, radius, -45)]


def _stroke(rng: np.random.Generator) -> list[np.ndarray]:
    """A thin bar that is no object."""
    a = rng.uniform(12, 60)
    b = a / rng.uniform(12, 24)
    return [np.array([(-a, -b), (a, -b), (a, b), (-a, b)])]


def _position(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.uniform((0, 0), (width, height))


def _place(outline: Sequence[np.ndarray], angle: float, centre: np.ndarray) -> list[np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return [points @ np.array([(cos, sin), (-sin, cos)]) + centre for points in outline]


def coverage(
    outline: Sequence[np.ndarray], top: int, left: int, height: int, width: int
) -> np.ndarray:
    """Returns how much of each pixel of a window lies inside polygons: `(height, width)`, 0-255.

    OpenCV fills the fine pixels on an edge too, so that shapes are about 0.1 pixels too large.
    """
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), dtype=np.uint8)
    # OpenCV's coordinates name the centres of pixels, in sixteenths here; ours name corners.
    points = [((p - (left, top)) * SUPERSAMPLING - 0.5) * 16 for p in outline]
    cv2.fillPoly(fine, [np.round(p).astype(np.int32) for p in points], 255, shift=4)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)


def _window(outline: Sequence[np.ndarray], margin: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the pixels that hold an outline and a margin."""
    points = np.concatenate(outline)
    left, top = np.floor(points.min(0)).astype(int) - margin
    right, bottom = np.ceil(points.max(0)).astype(int) + margin
    return int(top), int(left), int(bottom - top), int(right - left)


def _clip(window: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    top, left, height, width = window
    bottom, right = min(top + height, shape[0]), min(left + width, shape[1])
    top, left = max(top, 0), max(left, 0)
    return top, left, bottom - top, right - left


def _claim(
    rng: np.random.Generator,
    label: int,
    owner: np.ndarray,
    whole_areas: list[int],
    preset: Preset,
) -> list[np.ndarray] | None:
    """Finds a place that leaves every shape visible enough, and claims its pixels there.

    Args:
        rng: Source of size, proportions and the positions tried.
        label: The class.
        owner: `(H, W)`, index of the visible shape or -1; the new shape is written into it.
        whole_areas: Pixels of each shape as if nothing hid it; the new one's is appended.
        preset: Says how large shapes are, how far they turn, and what share of them must show.

    Returns:
        The placed outline, or None if no place was found.
    """
    radius = np.exp(rng.uniform(*np.log(preset.radius)))
    ratio = rng.uniform(0.40, 0.65) if CLASSES[label] == "ring" else rng.uniform(0.28, 0.42)
    shape = outline_of(CLASSES[label], radius, ratio)
    tilt = np.pi if preset.tilt == 100 else np.arcsin(preset.tilt / 100)
    visible = np.bincount(owner[owner >= 0], minlength=len(whole_areas))
    for _ in range(PLACEMENTS):
        outline = _place(shape, rng.uniform(-tilt, tilt), _position(rng, *owner.shape))
        window = _window(outline, margin=0)
        whole = coverage(outline, *window) >= 128
        top, left, height, width = _clip(window, owner.shape)
        patch = owner[top : top + height, left : left + width]
        mask = whole[top - window[0] :, left - window[1] :][:height, :width]
        hidden = np.bincount(patch[mask & (patch >= 0)], minlength=len(whole_areas))
        left_over = np.array([*(visible - hidden), mask.sum()])
        wholes = np.array([*whole_areas, whole.sum()])
        if (100 * left_over >= preset.min_visible * wholes).all() and left_over[-1]:
            patch[mask] = len(whole_areas)
            whole_areas.append(int(wholes[-1]))
            return outline
    return None


def _draw_background(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ground, `(H, W, 3)` float32, and its chief colour."""
    size = min(height, width)
    ground = random_colour(rng, saturation=(0.04, 0.6), value=(0.23, 0.86))
    noise = lattice_noise(rng, height, width, size / rng.choice((2, 3, 5, 8)))[..., None]
    cloud = ground + noise * (vary_colour(rng, ground, 20, 60) - ground)
    pattern = texture(rng, height, width, size / rng.choice((3, 5, 8)))[..., None]
    veil = ground + pattern * (vary_colour(rng, ground, 30, 80) - ground)
    share = rng.uniform(0.15, 0.8)
    return (cloud + share * (veil - cloud)).astype(np.float32), ground


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    outline: Sequence[np.ndarray],
    label: int | None,
    ground: np.ndarray,
    light: float,
    preset: Preset,
) -> None:
    """Paints a shape with its shadow over `canvas`, `(H, W, 3)` float32, in place."""
    window = _clip(_window(outline, margin=SHADOW_REACH + 3), canvas.shape)
    top, left, height, width = window
    if height <= 0 or width <= 0:
        return
    patch = canvas[top : top + height, left : left + width]
    towards_light = np.array([np.cos(light), np.sin(light)])
    dropped = [points - SHADOW_REACH * towards_light for points in outline]
    shadow = cv2.blur(coverage(dropped, *window), (3, 3)).astype(np.float32) / 255
    patch *= 1 - 0.4 * shadow[..., None]

    alpha = coverage(outline, *window)
    fill = _lit_fill(rng, alpha, outline, window, towards_light, label, ground, preset)
    patch += (fill - patch) * (alpha.astype(np.float32) / 255)[..., None]


def _lit_fill(
    rng: np.random.Generator,
    alpha: np.ndarray,
    outline: Sequence[np.ndarray],
    window: tuple[int, int, int, int],
    towards_light: np.ndarray,
    label: int | None,
    ground: np.ndarray,
    preset: Preset,
) -> np.ndarray:
    """Returns the pixels of a shape, `(height, width, 3)`: textured, lit, some with a rim."""
    top, left, height, width = window
    colour = _random_fill_colour(rng, label, ground, preset)
    points = np.concatenate(outline)
    centre = points.mean(0)
    radius = float(np.linalg.norm(points - centre, axis=1).max())
    pattern = texture(rng, height, width, radius * 2 / rng.integers(2, 5))
    if rng.random() >= preset.textured / 100:
        pattern[:] = 0
    fill = colour + pattern[..., None] * (vary_colour(rng, colour, 30, 90) - colour)
    dx = (np.arange(width) + left + 0.5 - centre[0])[None, :]
    dy = (np.arange(height) + top + 0.5 - centre[1])[:, None]
    slope = (dx * towards_light[0] + dy * towards_light[1]) / radius  # -1..1 across the shape
    fill *= 1 + slope[..., None] * rng.uniform(0, 0.27)
    if rng.random() < 0.6:
        inside = cv2.copyMakeBorder(
            (alpha >= 128).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE
        )
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5)[1:-1, 1:-1]
        fill[depth <= max(1.0, radius / rng.uniform(8, 14))] *= rng.choice((0.43, 0.59, 1.33))
    return np.clip(fill, 0, 255)


def _random_fill_colour(
    rng: np.random.Generator, label: int | None, ground: np.ndarray, preset: Preset
) -> np.ndarray:
    """Returns a colour that stands out from the ground's, as far as the tries find one."""
    hue, saturation, value = (0.0, 1.0), (0.16, 1.0), (0.2, 1.0)
    if label is not None and rng.random() < preset.own_hue / 100:
        own = label / len(CLASSES)
        hue, saturation, value = (own - HUE_SPREAD, own + HUE_SPREAD), (0.55, 1.0), (0.35, 1.0)
    for _ in range(PLACEMENTS):
        colour = random_colour(rng, saturation, value, hue)
        if np.abs(colour - ground).sum() >= preset.min_contrast:
            break
    return colour


def _expose(rng: np.random.Generator, canvas: np.ndarray, noise: int) -> np.ndarray:
    """Varies brightness, contrast and colour balance, and adds noise: `(H, W, 3)`, uint8."""
    shift = rng.uniform(-25, 25) + rng.uniform(-10, 10, 3)
    exposed = (canvas - 128) * rng.uniform(0.78, 1.13) + 128 + shift
    grain = rng.random(canvas.shape, dtype=np.float32) - rng.random(canvas.shape, dtype=np.float32)
    return np.clip(exposed + grain * rng.uniform(0, noise), 0, 255).astype(np.uint8)
