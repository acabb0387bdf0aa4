import math

import cv2
import numpy as np
import pytest

from swin_mm.datasets.shapes import CLASSES, PRESETS, draw_scene
from swin_mm.datasets.shapes.scene import Painter, Scene, coverage, outline_of
from swin_mm.datasets.shapes.write import VERSION

EASY_CLASSES = [[4, 5, 3, 5, 1, 3, 5, 0], [3, 5, 5], [3, 0, 4, 1, 0]]
EASY_BOXES = [
    [107, 8, 156, 64],
    [59, 0, 123, 45],
    [0, 34, 53, 87],
    [88, 69, 128, 100],
    [111, 122, 160, 160],
    [28, 9, 57, 39],
    [86, 25, 122, 60],
    [81, 89, 115, 123],
]
SEEDS = {"large": range(3)}  # for the others enough to see every kind of scene


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        name: [draw_scene(seed, name) for seed in SEEDS.get(name, range(40))] for name in PRESETS
    }


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_seed_always_gives_the_same_scene(scenes, preset):
    for seed, scene in enumerate(scenes[preset][:4]):
        again = draw_scene(seed, preset)
        np.testing.assert_array_equal(again.image, scene.image)
        np.testing.assert_array_equal(again.masks, scene.masks)
    assert len({scene.image.tobytes() for scene in scenes[preset]}) == len(scenes[preset])


def test_a_change_of_the_data_is_a_new_version(scenes):
    """Raise `write.VERSION` whenever these must be changed."""
    assert VERSION == 3
    assert [scene.classes.tolist() for scene in scenes["easy"][:3]] == EASY_CLASSES
    assert scenes["easy"][0].boxes().tolist() == EASY_BOXES


@pytest.mark.parametrize("preset", PRESETS)
def test_scene_is_consistent(scenes, preset):
    for scene in scenes[preset]:
        height, width = scene.image.shape[:2]
        assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
        assert height in PRESETS[preset].sides and width in PRESETS[preset].sides
        assert scene.masks.shape == (len(scene.classes), height, width)
        assert scene.masks.dtype == bool
        assert (scene.masks.sum(axis=0) <= 1).all(), "visible parts overlap"

        labels = scene.label_map()
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels == 0, ~scene.masks.any(axis=0))
        for mask, label, box in zip(scene.masks, scene.classes, scene.boxes(), strict=True):
            assert (labels[mask] == 1 + label).all()
            left, top, w, h = cv2.boundingRect(mask.astype(np.uint8))
            assert box.tolist() == [left, top, left + w, top + h]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_masks_are_the_outlines_minus_what_covers_them(monkeypatch, preset):
    """Draws the recorded outlines again, later over earlier, and checks the visibility rule."""
    drawn = []
    paint = Painter.paint

    def record(self, outline, label):
        if label is not None:
            drawn.append((label, outline))
        paint(self, outline, label)

    monkeypatch.setattr(Painter, "paint", record)
    for seed in SEEDS.get(preset, range(15)):
        drawn.clear()
        scene = draw_scene(seed, preset)
        height, width = scene.image.shape[:2]
        assert [label for label, _ in drawn] == scene.classes.tolist()
        covered = np.zeros((height, width), dtype=bool)
        for (_, outline), mask in reversed(list(zip(drawn, scene.masks, strict=True))):
            whole = coverage(outline, -200, -200, height + 400, width + 400) >= 128
            inside = whole[200:-200, 200:-200]
            # OpenCV may round an edge otherwise in another window.
            assert (mask != inside & ~covered).sum() <= 4
            covered |= inside | mask
            assert mask.sum() >= PRESETS[preset].min_visible / 100 * whole.sum()


R, RATIO = 40.0, 0.5
HALF = R / math.hypot(1, RATIO)  # of a cross's arms, whose corners lie on the circle
AREAS = {
    "circle": math.pi * R**2,
    "ring": math.pi * R**2 * (1 - RATIO**2),
    "triangle": 3 * math.sqrt(3) / 4 * R**2,
    "square": 2 * R**2,
    "star": 10
    * R**2
    / 2
    * math.sin(math.pi / 5)
    * math.cos(math.radians(72))
    / math.cos(math.pi / 5),
    "cross": 4 * HALF**2 * (1 - (1 - RATIO) ** 2),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_outlines_have_the_area_of_the_shape(kind):
    outline = [points + (50.3, 60.7) for points in outline_of(kind, R, RATIO)]
    covered = coverage(outline, 0, 0, 120, 110).astype(float) / 255
    assert covered.sum() == pytest.approx(AREAS[kind], rel=0.02)
    reach = max(np.linalg.norm(points - (50.3, 60.7), axis=1).max() for points in outline)
    assert reach == pytest.approx(R)
    rows, columns = np.mgrid[:120, :110] + 0.5  # the centre of mass is the centre of the shape
    assert (covered * columns).sum() / covered.sum() == pytest.approx(50.3, abs=0.1)
    assert (covered * rows).sum() / covered.sum() == pytest.approx(60.7, abs=0.1)


def test_coverage_of_pixels_by_hand():
    """To a quarter of a pixel: OpenCV fills the pixels on the edge too."""
    box = [np.array([(1.0, 2.0), (3.5, 2.0), (3.5, 4.0), (1.0, 4.0)])]
    expected = np.zeros((5, 6))
    expected[2:4, 1:3], expected[2:4, 3] = 255, 128
    np.testing.assert_allclose(coverage(box, 0, 0, 5, 6), expected, atol=64)
    np.testing.assert_allclose(coverage(box, 1, 2, 3, 3), expected[1:4, 2:5], atol=64)


def test_standard_is_a_real_task(scenes):
    """Every class, occlusion, sizes over a factor of ten, images without objects, odd sides."""
    drawn = scenes["standard"]
    labels = np.concatenate([scene.classes for scene in drawn])
    assert np.bincount(labels, minlength=6).min() > len(labels) / 12
    boxes = np.concatenate([scene.boxes() for scene in drawn])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    assert np.percentile(sides, 98) > 10 * np.percentile(sides, 2)
    assert any(scene.image.shape[0] != scene.image.shape[1] for scene in drawn)
    assert any(len(draw_scene(seed, "standard").classes) == 0 for seed in range(40, 90))


@pytest.mark.slow
def test_colour_does_not_tell_the_class():
    """In the standard preset mean colours of classes differ by less than what chance allows."""
    colours = {label: [] for label in range(len(CLASSES))}
    for seed in range(300):
        scene = draw_scene(seed, "standard")
        for mask, label in zip(scene.masks, scene.classes, strict=True):
            colours[int(label)].append(scene.image[mask].mean(axis=0))
    means = np.array([np.mean(c, axis=0) for c in colours.values()])
    errors = np.array([np.std(c, axis=0) / np.sqrt(len(c)) for c in colours.values()])
    assert (abs(means - means.mean(axis=0)) < 4 * errors).all()


def test_most_shapes_have_the_hue_of_their_class_in_the_easy_preset(scenes):
    is_own = []
    for scene in scenes["easy"]:
        hue = cv2.cvtColor(scene.image, cv2.COLOR_RGB2HSV)[..., 0].astype(int)  # 0-179
        for mask, label in zip(scene.masks, scene.classes, strict=True):
            difference = abs(np.median((hue[mask] - 30 * label + 90) % 180 - 90))
            is_own.append(difference < 15)
    assert 0.8 < np.mean(is_own) < 0.97


def test_shapes_stand_out_from_their_surroundings(scenes):
    """In the easy preset, inside and just outside of a shape differ for nearly every shape."""
    contrasts = []
    for scene in scenes["easy"]:
        everything = scene.masks.any(axis=0)
        for mask in scene.masks:
            grown = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) > 0
            around = grown & ~everything
            if not around.any():  # drawn upon another shape
                continue
            difference = scene.image[mask].mean(axis=0) - scene.image[around].mean(axis=0)
            contrasts.append(abs(difference).sum())
    assert np.percentile(contrasts, 5) > 30


@pytest.mark.parametrize(
    ("seed", "preset", "message"),
    [
        (-1, "easy", "must not be negative, got seed=-1"),
        (0, "hard", "are standard, easy, large, tiny, got 'hard'"),
    ],
)
def test_bad_arguments_are_refused(seed, preset, message):
    with pytest.raises(ValueError, match=message):
        draw_scene(seed, preset)
