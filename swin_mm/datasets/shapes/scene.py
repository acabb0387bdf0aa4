"""Draws one image of the built-in data, with the visible part of every shape."""

from dataclasses import dataclass

import numpy as np

from swin_mm.datasets.shapes.bits import BitStream, byte_grid
from swin_mm.datasets.shapes.geometry import (
    ONE,
    SUBPIXELS,
    Outline,
    pixel_centres,
    random_direction,
    random_radius,
    random_tilt,
)
from swin_mm.datasets.shapes.presets import CLASSES, Preset, get_preset
from swin_mm.datasets.shapes.texture import (
    HUES,
    Colour,
    cloud,
    paint,
    random_colour,
    random_pattern,
    vary_colour,
)

PLACEMENTS = 12  # positions tried for one shape before it is given up
SHADOW_REACH = 3  # pixels


@dataclass(frozen=True)
class Scene:
    """An image and what is to be seen in it.

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
        boxes = np.zeros((len(self.masks), 4), dtype=np.int64)
        for box, mask in zip(boxes, self.masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def label_map(self) -> np.ndarray:
        """Returns the semantic map, `(H, W)`, uint8: 0 is background, `1 + class` elsewhere."""
        labels = np.zeros(self.image.shape[:2], dtype=np.uint8)
        for mask, label in zip(self.masks, self.classes, strict=True):
            labels[mask] = 1 + label
        return labels


def draw_scene(seed: int, preset: str = "standard") -> Scene:
    """Draws the image of a seed: the same pixels and masks on every machine.

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
    bits = BitStream(seed)
    height, width = bits.choice(preset.sides), bits.choice(preset.sides)
    canvas, ground = _draw_background(bits, height, width)
    light = random_direction(bits)
    for _ in range(bits.between(0, preset.strokes)):
        _draw_shape(bits, canvas, _random_stroke(bits, height, width), ground, light, preset)

    owner = np.full((height, width), -1, dtype=np.int32)  # index of the shape that shows there
    whole_areas: list[int] = []
    classes: list[int] = []
    count = 0 if bits.chance(preset.empty) else bits.between(*preset.shapes)
    for _ in range(count):
        label = bits.below(len(CLASSES))
        radius = random_radius(bits, *(r * SUBPIXELS for r in preset.radius))
        outline = _place(bits, CLASSES[label], radius, owner, whole_areas, preset)
        if outline is not None:
            _draw_shape(bits, canvas, outline, ground, light, preset)
            classes.append(label)

    masks = owner == np.arange(len(classes))[:, None, None]  # (num_shapes, H, W)
    image = _expose(bits, canvas, preset.noise)
    return Scene(image, masks, np.array(classes, dtype=np.int64))


def _draw_background(bits: BitStream, height: int, width: int) -> tuple[np.ndarray, Colour]:
    """Returns the ground, `(H, W, 3)` int32, and its chief colour."""
    size = min(height, width)
    ground = random_colour(bits, saturation=(10, 150), value=(60, 220))
    canvas = paint(
        cloud(bits, height, width, size // bits.choice((2, 3, 5, 8))),
        ground,
        vary_colour(bits, ground, 20, 60),
    )
    pattern = random_pattern(bits, height, width, size // bits.choice((3, 5, 8)))
    veil = paint(pattern, ground, vary_colour(bits, ground, 30, 80))
    share = bits.between(40, 200)  # of 256
    return (canvas * (256 - share) + veil * share) >> 8, ground


def _random_stroke(bits: BitStream, height: int, width: int) -> Outline:
    return Outline(
        kind="stroke",
        x=bits.below(width * SUBPIXELS),
        y=bits.below(height * SUBPIXELS),
        radius=bits.between(12, 60) * SUBPIXELS,
        direction=random_direction(bits),
        ratio=ONE // bits.between(12, 24),
    )


def _place(
    bits: BitStream,
    kind: str,
    radius: int,
    owner: np.ndarray,
    whole_areas: list[int],
    preset: Preset,
) -> Outline | None:
    """Finds a place that leaves every shape visible enough, and claims its pixels there.

    Args:
        bits: Source of the positions tried.
        kind: Class name.
        radius: In sixteenths of a pixel.
        owner: `(H, W)`, index of the visible shape or -1; the new shape is written into it.
        whole_areas: Pixels of each shape as if nothing hid it; the new one's is appended.
        preset: Says how far shapes turn, and what per cent of those pixels must show.

    Returns:
        The placed outline, or None if no place was found.
    """
    height, width = owner.shape
    ratio = ONE * (bits.between(40, 65) if kind == "ring" else bits.between(28, 42)) // 100
    visible = np.bincount(owner[owner >= 0], minlength=len(whole_areas))
    for _ in range(PLACEMENTS):
        x, y = bits.below(width * SUBPIXELS), bits.below(height * SUBPIXELS)
        outline = Outline(kind, x, y, radius, random_tilt(bits, preset.tilt), ratio)
        top, left, side = _window(outline, margin=1)
        whole = outline.depth(top, left, side, side) >= 0
        rows, columns = _clip(top, side, height), _clip(left, side, width)
        mask = whole[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        patch = owner[rows, columns]
        hidden = np.bincount(patch[mask & (patch >= 0)], minlength=len(whole_areas))
        left_over = [*(visible - hidden), mask.sum()]
        wholes = [*whole_areas, int(whole.sum())]
        if all(100 * v >= preset.min_visible * w for v, w in zip(left_over, wholes, strict=True)):
            patch[mask] = len(whole_areas)
            whole_areas.append(wholes[-1])
            return outline
    return None


def _window(outline: Outline, margin: int) -> tuple[int, int, int]:
    """Returns top, left and side, in pixels, of a square that holds the outline and a margin."""
    reach = -(-outline.radius // SUBPIXELS) * 17 // 16 + 1 + margin  # a stroke's corners stand out
    return outline.y // SUBPIXELS - reach, outline.x // SUBPIXELS - reach, 2 * reach + 1


def _clip(start: int, length: int, limit: int) -> slice:
    return slice(max(0, start), min(limit, start + length))


def _draw_shape(
    bits: BitStream,
    canvas: np.ndarray,
    outline: Outline,
    ground: Colour,
    light: tuple[int, int],
    preset: Preset,
) -> None:
    """Paints a shape with its shadow over `canvas`, `(H, W, 3)` int32, in place."""
    top, left, side = _window(outline, margin=SHADOW_REACH + 2)
    rows, columns = _clip(top, side, canvas.shape[0]), _clip(left, side, canvas.shape[1])
    top, left = rows.start, columns.start
    height, width = rows.stop - top, columns.stop - left
    patch = canvas[rows, columns]

    # Shadow: the outline moved away from the light, three pixels soft, up to 40 per cent dark.
    shift = [-(SHADOW_REACH * part) // ONE for part in light]
    shadow = outline.depth(top - shift[1], left - shift[0], height, width)
    patch -= patch * np.clip(shadow + 24, 0, 48)[..., None] * 2 // 240

    depth = outline.depth(top, left, height, width)
    fill = _random_fill(bits, height, width, outline, ground, preset)
    fill = _shade(bits, fill, depth, outline, light, (top, left))
    coverage = np.clip(depth + SUBPIXELS // 2, 0, SUBPIXELS)[..., None]  # soft over one pixel
    patch += (fill - patch) * coverage // SUBPIXELS


def _random_fill(
    bits: BitStream, height: int, width: int, outline: Outline, ground: Colour, preset: Preset
) -> np.ndarray:
    """Returns a texture `(height, width, 3)` whose chief colour stands out from the ground's."""
    ranges = dict(saturation=(40, 255), value=(50, 255))
    if outline.kind in CLASSES and bits.chance(preset.own_hue):
        centre = HUES * CLASSES.index(outline.kind) // len(CLASSES)
        ranges = dict(saturation=(140, 255), value=(90, 255), hue=(centre - 50, centre + 50))
    for _ in range(PLACEMENTS):
        colour = random_colour(bits, **ranges)
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) >= preset.min_contrast:
            break
    radius = outline.radius // SUBPIXELS
    pattern = random_pattern(bits, height, width, radius * 2 // bits.between(2, 4))
    if not bits.chance(preset.textured):
        pattern = np.zeros_like(pattern)
    return paint(pattern, colour, vary_colour(bits, colour, 30, 90))


def _shade(
    bits: BitStream,
    fill: np.ndarray,
    depth: np.ndarray,
    outline: Outline,
    light: tuple[int, int],
    origin: tuple[int, int],
) -> np.ndarray:
    """Lights a fill from one side and, for some shapes, draws a rim along the edge."""
    height, width = depth.shape
    dy = pixel_centres(origin[0], height)[:, None] - outline.y
    dx = pixel_centres(origin[1], width)[None, :] - outline.x
    slope = (dx * light[0] + dy * light[1]) // outline.radius  # -ONE..ONE across the shape
    strength = bits.between(0, 70)  # of 256
    fill = fill * (256 + (slope * strength // ONE)[..., None]) >> 8
    if bits.chance(60):
        rim = max(SUBPIXELS, outline.radius // bits.between(8, 14))
        tone = bits.choice((110, 150, 340))  # of 256: dark, darker, bright
        fill = np.where((depth <= rim)[..., None], fill * tone >> 8, fill)
    return np.clip(fill, 0, 255)


def _expose(bits: BitStream, canvas: np.ndarray, noise: int) -> np.ndarray:
    """Varies brightness, contrast and colour balance, and adds noise: `(H, W, 3)`, uint8."""
    height, width, _ = canvas.shape
    contrast = bits.between(200, 290)  # of 256
    brightness = bits.between(-25, 25)
    balance = np.array([bits.between(-10, 10) for _ in range(3)], dtype=np.int32)
    exposed = ((canvas - 128) * contrast >> 8) + 128 + brightness + balance
    amplitude = bits.between(0, noise)
    # Two bytes per channel: their sum has a triangular distribution, near enough to a bell.
    grain = byte_grid(bits.word(), height, width, planes=6).astype(np.int32)
    grain = grain[..., :3] + grain[..., 3:] - 255  # (H, W, 3), -255..255
    return np.clip(exposed + grain * amplitude // 256, 0, 255).astype(np.uint8)
