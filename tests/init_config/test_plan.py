"""The arithmetic of schedules and sizes, by hand."""

import pytest

from swin_mm.init_config import plan


@pytest.mark.parametrize(
    ("images", "preset", "epochs", "steps"),
    [
        (10, "full", 300, 3),  # no more than 300 times each
        (200, "full", 100, 50),  # 20,000 images seen
        (118_000, "full", 12, 29_500),  # at least what is published
        (10, "small", 100, 3),
        (48, "small", 33, 12),  # 400 steps of 4 images
        (5_000, "small", 2, 1_250),
    ],
)
def test_epochs_of_detectors(images, preset, epochs, steps):
    schedule = plan.plan_epochs(images, 4, preset, 12 if preset == "full" else 0)
    assert (schedule.epochs, schedule.steps) == (epochs, steps)
    assert 1 <= schedule.warmup <= min(500, epochs * steps // 10)
    assert 1 <= epochs // schedule.val_interval <= 19


def test_long_recipes_stay_long():
    assert plan.plan_epochs(118_000, 16, "full", 36).epochs == 36


@pytest.mark.parametrize(
    ("images", "preset", "steps"),
    [
        (60, "full", 4_000),
        (1_000, "full", 31_800),  # 127 epochs of 250 steps, to whole hundreds
        (20_210, "full", 160_000),
        (60, "small", 400),
        (100, "small", 500),
        (9_000, "small", 1_000),
    ],
)
def test_steps_of_segmentors(images, preset, steps):
    schedule = plan.plan_steps(images, 4, preset)
    assert schedule.steps == steps
    assert steps % schedule.val_interval == 0


@pytest.mark.parametrize(
    ("sizes", "object_side", "preset", "scale"),
    [
        ([(160, 160)], 100, "full", (320, 320)),  # small images, enlarged twofold
        ([(480, 640)] * 3 + [(4000, 3000)], 100, "full", (640, 480)),  # the middle one
        ([(640, 480)], 45, "full", (640, 480)),
        ([(640, 480)], 30, "full", (960, 704)),  # small objects, enlarged by 1.5
        ([(640, 480)], 20, "full", (1056, 800)),  # by no more than there is room for
        ([(640, 480)], 9, "full", (1056, 800)),
        ([(3000, 4000)], 20, "full", (1333, 800)),
        ([(160, 160)], 34, "small", (160, 160)),
        ([(160, 160)], 22.85, "small", (224, 224)),  # nuclei
        ([(160, 160)], 5, "small", (320, 320)),  # no more than twofold
        ([(300, 400)], 5, "small", (512, 384)),
        ([(1080, 1920)], 10, "small", (512, 288)),
        ([(9, 7)], 5, "small", (32, 32)),
        ([(160, 160)], float("inf"), "small", (160, 160)),  # no box to go by
    ],
    ids=str,
)
def test_size_of_images_for_detectors(sizes, object_side, preset, scale):
    zoom = plan.choose_zoom(sizes, object_side, preset)
    assert plan.choose_scale(sizes, zoom, preset) == scale


@pytest.mark.parametrize(
    ("size", "preset", "scale", "crop"),
    [
        ((1024, 2048), "full", (2048, 1024), 512),
        ((300, 400), "full", (672, 512), 512),
        ((200, 320), "full", (640, 384), 384),
        ((192, 320), "small", (320, 192), 192),
        ((1024, 2048), "small", (512, 256), 256),
    ],
    ids=str,
)
def test_size_of_images_for_segmentors(size, preset, scale, crop):
    assert plan.choose_segmentation_scale([size], preset) == scale
    assert plan.choose_crop(scale, preset) == crop


def test_batches_cost_what_the_recipes_do():
    assert plan.choose_batch((1333, 800), 1000, "full") == 2
    assert plan.choose_batch((640, 480), 1000, "full") == 4
    assert plan.choose_batch((320, 320), 1000, "full") == plan.MAX_BATCH
    assert plan.choose_batch((320, 320), 12, "full") == 2  # four steps an epoch
    assert plan.choose_batch((512, 512), 1000, "small") == 4
    assert plan.choose_batch((320, 320), 1, "full") == 2


def test_training_on_enlarged_images_takes_as_long():
    """Twice the pixels an image, half the images a step, the same number of steps."""
    assert plan.choose_batch((224, 224), 1000, "small", zoom=1.5) == 2
    assert plan.choose_batch((160, 160), 1000, "small", zoom=1.1) == 4
    assert plan.choose_batch((512, 288), 1000, "small", zoom=0.5) == 4
    steps = [plan.plan_epochs(100, batch, "small") for batch in (2, 4)]
    assert [schedule.epochs * schedule.steps for schedule in steps] == [400, 400]
