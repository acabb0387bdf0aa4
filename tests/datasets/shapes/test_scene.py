import hashlib

import cv2
import numpy as np
import pytest

from swin_mm.datasets.shapes import CLASSES, PRESETS, draw_scene
from swin_mm.datasets.shapes import scene as scene_module
from swin_mm.datasets.shapes.scene import Scene

# SHA-256 (first 16 digits) over images, label maps and boxes of the first seeds. Equal on Python
# 3.10 to 3.13, NumPy 1.26 to 2.4, with and without vector instructions. A change of these numbers
# is a new version of the data: raise `write.VERSION` with it.
DIGESTS = {
    "tiny": "a61d5ef57c075007",
    "easy": "fd117eff60e134aa",
    "standard": "a85a1804618d7edd",
    "large": "98f11af051dab5c9",
}
SEEDS = {"large": range(3)}  # for the others enough to see every kind of scene


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        name: [draw_scene(seed, name) for seed in SEEDS.get(name, range(40))] for name in PRESETS
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_pixels_and_annotations_are_those_of_every_machine(scenes, preset):
    digest = hashlib.sha256()
    for scene in scenes[preset]:
        digest.update(scene.image.tobytes())
        digest.update(scene.label_map().tobytes())
        digest.update(scene.boxes().astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[preset]


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


@pytest.mark.parametrize("preset", PRESETS)
def test_masks_are_the_outlines_minus_what_covers_them(monkeypatch, preset):
    """Draws the recorded outlines again, later over earlier, and checks the visibility rule."""
    drawn = []
    paint = scene_module._draw_shape

    def record(bits, canvas, outline, *rest):
        drawn.append(outline)
        paint(bits, canvas, outline, *rest)

    monkeypatch.setattr(scene_module, "_draw_shape", record)
    for seed in SEEDS.get(preset, range(25)):
        drawn.clear()
        scene = draw_scene(seed, preset)
        height, width = scene.image.shape[:2]
        outlines = [outline for outline in drawn if outline.kind != "stroke"]
        assert [outline.kind for outline in outlines] == [CLASSES[i] for i in scene.classes]
        covered = np.zeros((height, width), dtype=bool)
        for outline, mask in reversed(list(zip(outlines, scene.masks, strict=True))):
            whole = outline.depth(-200, -200, height + 400, width + 400) >= 0
            inside = whole[200:-200, 200:-200]
            np.testing.assert_array_equal(mask, inside & ~covered)
            covered |= inside
            assert mask.sum() >= PRESETS[preset].min_visible / 100 * whole.sum()


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
