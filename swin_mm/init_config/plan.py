"""The rules by which a config for one's own data is fitted to it; each states its arithmetic.

Sizes of images are heights and widths in pixels, scales are long and short sides, and presets are
`full`, for a recipe, and `small`, for a model that trains on a CPU.
"""

from statistics import median
from typing import NamedTuple

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

VALIDATIONS = 10
WARMUP_SHARE = 10  # a tenth of all steps, at most

Sizes = list[tuple[int, int]]


class Schedule(NamedTuple):
    """How long to train: epochs of `steps` steps of `batch` images, and in words why."""

    epochs: int
    batch: int
    steps: int
    warmup: int
    val_interval: int
    why: str


def plan_epochs(images: int, batch: int, preset: str, published_epochs: int = 0) -> Schedule:
    """Scales the schedule of a detector, at least the recipe's epochs, to the training images."""
    least = max(published_epochs, MIN_EPOCHS_SMALL)
    most = max(MAX_EPOCHS[preset], least)
    seen, words = DETECTION_IMAGES_SEEN, f"{DETECTION_IMAGES_SEEN:,}"
    if preset == "small":
        seen, words = SMALL_STEPS * batch, f"{SMALL_STEPS} x {batch}"
    epochs = min(most, max(least, round(seen / images)))
    steps = -(-images // batch)
    warmup = max(1, min(500, epochs * steps // WARMUP_SHARE))
    why = (
        f"{words} images are to be seen, within {least} to {most} epochs: {words} / {images} images"
    )
    return Schedule(epochs, batch, steps, warmup, max(1, epochs // VALIDATIONS), why)


def plan_steps(images: int, batch: int, preset: str) -> Schedule:
    """As `plan_epochs` for a segmentor, which counts steps: one epoch of all of them."""
    epochs, (least, most) = SEGMENTATION_EPOCHS[preset], SEGMENTATION_STEPS[preset]
    steps = min(most, max(least, round(epochs * images / batch)))
    steps = -(-steps // 100) * 100
    as_published = ", as the recipe on ADE20K" if preset == "full" else ""
    why = f"{epochs} epochs{as_published}, within {least:,} to {most:,} steps: {epochs} x {images} "
    why += f"images / {batch}"
    warmup = min(1_500, steps // WARMUP_SHARE)
    return Schedule(1, batch, steps, warmup, steps // VALIDATIONS, why)


def choose_batch(scale: tuple[int, int], images: int, preset: str, zoom: float = 1.0) -> int:
    """Chooses the images of a step on one GPU: those that cost what the recipe's two cost.

    A power of two, at least two, at most sixteen, at least four steps an epoch. For the small model
    four, or two of images that are enlarged to more than one and a half times their pixels, so that
    training takes as long.
    """
    fitting = PIXELS_A_STEP // (scale[0] * scale[1])
    if preset == "small":
        fitting = SMALL_BATCH // 2 if zoom**2 > 1.5 else SMALL_BATCH
    most = max(2, min(fitting, MAX_BATCH, images // 4))
    return 1 << (most.bit_length() - 1)


def choose_zoom(sizes: Sizes, object_side: float, preset: str) -> float:
    """Chooses what a detector's images are enlarged or reduced by.

    They are enlarged, up to twofold, until the middle object, whose side is the root of its box's
    area, lies between the two smallest anchors, and for the recipes to a short side of 480 pixels;
    and reduced to the recipes' 1333 x 800, or to 512 for the small model.
    """
    long, short = _middle_sides(sizes)
    wanted, limits = OBJECT_SIDE[preset] / object_side, (SMALL_LONG_SIDE, SMALL_LONG_SIDE)
    if preset == "full":
        wanted, limits = max(wanted, ENLARGED_SIDE / short), PUBLISHED_SIDES
    zoom = max(1.0, min(MOST_ENLARGED, wanted))
    return min(zoom, limits[0] / long, limits[1] / short)


def choose_scale(sizes: Sizes, zoom: float, preset: str) -> tuple[int, int]:
    """Chooses the scale that a detector's images are fitted into: the middle size, zoomed."""
    if preset == "full" and zoom < 1:
        return PUBLISHED_SIDES  # as published: the limits, not the middle image's own shape
    long, short = _middle_sides(sizes)
    return _round(zoom * long), _round(zoom * short)


def choose_segmentation_scale(sizes: Sizes, preset: str) -> tuple[int, int]:
    """Chooses the scale that a segmentor's images are fitted into.

    The middle size of the data, enlarged up to twofold to a short side of 512 pixels for the
    recipes, and reduced to a long side of 2048, or of 512 for the small model.
    """
    long, short = _middle_sides(sizes)
    zoom = 1.0 if preset == "small" else max(1.0, min(2.0, CROP["full"] / short))
    zoom = min(zoom, SEGMENTATION_LONG_SIDE[preset] / long)
    return _round(zoom * long), _round(zoom * short)


def choose_crop(scale: tuple[int, int], preset: str) -> int:
    """Chooses the side of the square that a segmentor is trained on, at most the short side."""
    return min(CROP[preset], scale[1])


def _middle_sides(sizes: Sizes) -> tuple[float, float]:
    return median(max(size) for size in sizes), median(min(size) for size in sizes)


def _round(side: float) -> int:
    return max(STEP, round(side / STEP) * STEP)
