"""What the built-in data holds: its classes, their colours in pictures, its difficulty presets."""

from dataclasses import dataclass, replace

CLASSES = ("circle", "triangle", "square", "star", "ring", "cross")
# The semantic maps give the background a class of its own: it covers most of every image, and a
# segmentor that could not say "none of the shapes" would be neither trained nor scored on it.
SEMANTIC_CLASSES = ("background", *CLASSES)

# For drawing annotations and predictions (RGB); the shapes themselves take any colour.
PALETTE = (
    (230, 85, 60),
    (60, 160, 225),
    (245, 190, 50),
    (150, 100, 215),
    (70, 185, 115),
    (235, 105, 175),
)
SEMANTIC_PALETTE = ((45, 50, 60), *PALETTE)


@dataclass(frozen=True)
class Preset:
    """One difficulty of the data; lengths in pixels. The defaults are those of `standard`.

    Attributes:
        train: Number of training images.
        val: Number of validation images.
        sides: Choices for an image's height and, independently, its width.
        shapes: Smallest and largest number of shapes that are tried in an image.
        radius: Smallest and largest circumscribed radius of a shape; sizes are log-uniform.
        tilt: Largest sine, in per cent, of the angle between a shape and the upright; at 100 shapes
            turn freely.
        textured: Per cent of shapes with a pattern; the others have one colour.
        min_visible: Per cent of every shape's whole area that later shapes and the image's border
            must leave visible; a shape that would break this, for itself or another, is not drawn.
        own_hue: Per cent of shapes in the hue of their class, as grass has one; others have any.
        min_contrast: Least distance (sum over channels, 0-765) of a shape's colour from the
            background's.
        strokes: Largest number of thin bars in the background, which are not objects.
        empty: Per cent of images without shapes.
        noise: Largest amplitude of the pixel noise, in grey levels.
    """

    train: int = 2000
    val: int = 400
    sides: tuple[int, ...] = (192, 224, 256, 288, 320)
    shapes: tuple[int, int] = (2, 14)
    radius: tuple[int, int] = (6, 84)
    tilt: int = 100
    textured: int = 100
    min_visible: int = 25
    own_hue: int = 0
    min_contrast: int = 80
    strokes: int = 5
    empty: int = 3
    noise: int = 16


EASY = Preset(
    train=1200,
    val=100,
    sides=(144, 160),
    shapes=(3, 8),
    radius=(11, 36),
    tilt=35,
    textured=50,
    min_visible=60,
    own_hue=90,
    min_contrast=150,
    strokes=0,
    empty=2,
    noise=6,
)
PRESETS = {
    "standard": Preset(),
    "easy": EASY,
    # The same in images five times as wide: for tests of sliced inference with a model that learned
    # from the small images. Few to train on.
    "large": replace(EASY, train=4, val=16, sides=(640, 768), shapes=(30, 60)),
    "tiny": Preset(
        train=12,
        val=6,
        sides=(80, 96),
        shapes=(0, 4),
        radius=(8, 24),
        min_visible=50,
        min_contrast=150,
        strokes=0,
        empty=0,
        noise=4,
    ),
}


def get_preset(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        ValueError: There is none; the message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"the presets of the shapes data are {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name]
