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
        (48, "small", 33, 12),  # 1,600 images seen
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
    ("sizes", "preset", "scale"),
    [
        ([(160, 160)], "full", (320, 320)),  # enlarged twofold
        ([(480, 640)] * 3 + [(4000, 3000)], "full", (640, 480)),  # the middle one
        ([(640, 480)], "full", (640, 480)),
        ([(3000, 4000)], "full", (1333, 800)),
        ([(160, 160)], "small", (160, 160)),
        ([(1080, 1920)], "small", (512, 288)),
        ([(9, 7)], "small", (32, 32)),
    ],
    ids=str,
)
def test_size_of_images_for_detectors(sizes, preset, scale):
    assert plan.choose_scale(sizes, preset) == scale


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


def test_colours_differ():
    palette = plan.choose_palette(40)
    assert len(set(palette)) == 40
    assert all(0 <= part <= 255 for colour in palette for part in colour)
