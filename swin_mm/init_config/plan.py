"""The rules by which a config for one's own data is fitted to it; each states its arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from swin_mm.datasets.check.sizes import UNTURNED

PRESETS = ("full", "small")

# Detection. The recipes' 12 epochs of COCO are 1.4 million images seen, from pretrained weights.
# Heads for one's own classes settle after some thousands of steps; few images, seen more than a few
# hundred times each, are known by heart.
DETECTION_IMAGES_SEEN = 20_000
SMALL_STEPS = 400  # of the small model, for the time it takes
MAX_EPOCHS = {"full": 300, "small": 100}
MIN_EPOCHS_SMALL = 2

# Segmentation. The recipes' 160,000 steps of 16 images are 127 epochs of ADE20K.
SEGMENTATION_EPOCHS = {"full": 127, "small": 20}
SEGMENTATION_STEPS = {"full": (4_000, 160_000), "small": (400, 1_000)}

PUBLISHED_SIDES = (1333, 800)  # long and short, pixels, that COCO's images are fitted into
ENLARGED_SIDE = 480  # small images are enlarged to it: weights have seen such sizes
# Small objects are enlarged to this side: the geometric middle of the two smallest anchors, 32 and
# 64 pixels in the recipes, 24 and 48 in the small model.
OBJECT_SIDE = {"full": 45, "small": 34}
MOST_ENLARGED = 2.0
SMALL_LONG_SIDE = 512  # of the small model, for the time it takes
SEGMENTATION_LONG_SIDE = {"full": 2048, "small": 512}
CROP = {"full": 512, "small": 256}
STEP = 32  # sides are multiples of it, as the deepest feature map's stride

PIXELS_A_STEP = 2 * 1333 * 800  # of a recipe on one GPU, which needs less than 8 GiB
MAX_BATCH = 16
SMALL_BATCH = 4

RATIOS = [0.5, 1.0, 2.0]  # height to width of the recipes' anchors
# An object twice as high as wide, or as wide as high, has an IoU of 0.55 with the square anchor of
# its area. Where three of four are no longer, other anchors are mostly further candidates to learn
# to refuse.
LONG_OBJECT = 2.0
SQUARE_SHARE = 0.75

VALIDATIONS = 10
WARMUP_SHARE = 10  # a tenth of all steps, at most


@dataclass(frozen=True)
class Schedule:
    """How long to train, in epochs of `steps` steps of `batch` images."""

    epochs: int
    batch: int
    steps: int
    warmup: int
    val_interval: int


def plan_epochs(images: int, batch: int, preset: str, published_epochs: int = 0) -> Schedule:
    """Scales the schedule of a detector to the number of training images.

    Args:
        images: Training images, after those without objects are left out.
        batch: Images a step.
        preset: `full` or `small`.
        published_epochs: Those of the recipe; at least so many are trained.
    """
    least = max(published_epochs, MIN_EPOCHS_SMALL)
    most = max(MAX_EPOCHS[preset], least)
    seen = SMALL_STEPS * batch if preset == "small" else DETECTION_IMAGES_SEEN
    epochs = min(most, max(least, round(seen / images)))
    steps = -(-images // batch)
    return Schedule(
        epochs=epochs,
        batch=batch,
        steps=steps,
        warmup=max(1, min(500, epochs * steps // WARMUP_SHARE)),
        val_interval=max(1, epochs // VALIDATIONS),
    )


def plan_steps(images: int, batch: int, preset: str) -> Schedule:
    """Scales the schedule of a segmentor, which counts steps, to the number of training images.

    Returns:
        One epoch of all the steps; `val_interval` is in steps.
    """
    least, most = SEGMENTATION_STEPS[preset]
    steps = min(most, max(least, round(SEGMENTATION_EPOCHS[preset] * images / batch)))
    steps = -(-steps // 100) * 100
    return Schedule(
        epochs=1,
        batch=batch,
        steps=steps,
        warmup=min(1_500, steps // WARMUP_SHARE),
        val_interval=steps // VALIDATIONS,
    )


def choose_batch(scale: tuple[int, int], images: int, preset: str, zoom: float = 1.0) -> int:
    """Chooses the images of a step on one GPU: those that cost what the recipe's two cost.

    A power of two, at least two, at most sixteen. For the small model four, or two of images that
    are enlarged to more than one and a half times their pixels, so that training takes as long.

    Args:
        scale: Long and short side of the images trained on, pixels.
        images: Training images; at least four steps make an epoch.
        preset: `full` or `small`.
        zoom: What images are enlarged by.
    """
    fitting = PIXELS_A_STEP // (scale[0] * scale[1])
    if preset == "small":
        fitting = SMALL_BATCH // 2 if zoom**2 > 1.5 else SMALL_BATCH
    most = max(2, min(fitting, MAX_BATCH, images // 4))
    return 1 << (most.bit_length() - 1)


def choose_zoom(sizes: list[tuple[int, int]], object_side: float, preset: str) -> float:
    """Chooses what a detector's images are enlarged or reduced by.

    They are enlarged, up to twofold, until the middle object lies between the two smallest anchors,
    and for the recipes to a short side of 480 pixels; and reduced to the recipes' 1333 x 800, or to
    512 for the small model.

    Args:
        sizes: Height and width of each image.
        object_side: Of the middle object of the middle image, pixels: the root of its box's area.
        preset: `full` or `small`.
    """
    long, short = _middle_sides(sizes)
    wanted, limits = OBJECT_SIDE[preset] / object_side, (SMALL_LONG_SIDE, SMALL_LONG_SIDE)
    if preset == "full":
        wanted, limits = max(wanted, ENLARGED_SIDE / short), PUBLISHED_SIDES
    zoom = max(1.0, min(MOST_ENLARGED, wanted))
    return min(zoom, limits[0] / long, limits[1] / short)


def choose_scale(sizes: list[tuple[int, int]], zoom: float, preset: str) -> tuple[int, int]:
    """Chooses the size that images are fitted into for a detector: the data's middle size, zoomed.

    Args:
        sizes: Height and width of each image.
        zoom: What images are enlarged or reduced by.
        preset: `full` or `small`.

    Returns:
        Long and short side, multiples of 32.
    """
    if preset == "full" and zoom < 1:
        # As published: the limits, not the middle image's own shape.
        return PUBLISHED_SIDES
    long, short = _middle_sides(sizes)
    return _round(zoom * long), _round(zoom * short)


def choose_ratios(shapes: list[tuple[float, float]]) -> list[float]:
    """Chooses the shapes of the small model's anchors, height to width.

    Args:
        shapes: Height and width of each object.
    """
    square = sum(max(shape) <= LONG_OBJECT * min(shape) for shape in shapes)
    return [1.0] if square >= SQUARE_SHARE * len(shapes) else RATIOS


def choose_segmentation_scale(sizes: list[tuple[int, int]], preset: str) -> tuple[int, int]:
    """Chooses the size that images are fitted into for a segmentor.

    The middle size of the data, enlarged up to twofold to a short side of 512 pixels for the
    recipes, and reduced to a long side of 2048, or of 512 for the small model.

    Args:
        sizes: Height and width of each image.
        preset: `full` or `small`.

    Returns:
        Long and short side, multiples of 32.
    """
    long, short = _middle_sides(sizes)
    zoom = 1.0 if preset == "small" else max(1.0, min(2.0, CROP["full"] / short))
    zoom = min(zoom, SEGMENTATION_LONG_SIDE[preset] / long)
    return _round(zoom * long), _round(zoom * short)


def choose_crop(scale: tuple[int, int], preset: str) -> int:
    """Chooses the side of the square that a segmentor is trained on.

    512 pixels, as the recipes, or 256 for the small model, or the short side of the images.
    """
    return min(CROP[preset], scale[1])


def _middle_sides(sizes: list[tuple[int, int]]) -> tuple[float, float]:
    return median(max(size) for size in sizes), median(min(size) for size in sizes)


def _round(side: float) -> int:
    return max(STEP, round(side / STEP) * STEP)


def choose_palette(count: int) -> list[tuple[int, int, int]]:
    """Chooses colours that differ: hues by the golden angle, in three brightnesses."""
    from colorsys import hsv_to_rgb

    colours = []
    for index in range(count):
        hue = (0.56 + index * 0.618034) % 1.0
        value = (0.95, 0.75, 0.55)[index % 3]
        red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue, 0.75, value))
        colours.append((red, green, blue))
    return colours


def choose_turning(bands: object, parts: Sequence[Any]) -> tuple[str, list[str]]:
    """Chooses whether colour pictures are turned as their EXIF orientation says.

    Args:
        bands: What other images than colour pictures have; they are never turned.
        parts: Training and validation data.

    Returns:
        What the loading step needs besides its type, and notes.
    """
    found = [part.color_type() for part in parts] if bands is None else []
    notes = [note for _, notes in found for note in notes]
    return (f', color_type="{UNTURNED}"' if notes else ""), notes[:1]
