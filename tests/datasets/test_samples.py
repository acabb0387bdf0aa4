"""Samples as pictures: colours, sizes, labels, whatever the pipeline yields."""

import numpy as np
import pytest
from broken_data import write_coco, write_semantic
from mmengine.config import Config

from swin_mm.datasets.samples import (
    LONGEST,
    build_dataset,
    draw_evenly,
    hide_unknown,
    read_sample,
    shrink,
    spread_evenly,
)
from swin_mm.structures import Objects, to_pixels, to_runs


def test_detection_as_filed_and_as_trained_on(tmp_path):
    """The training pipeline mirrors every image, the files' objects lie at 5 to 25 of 50."""
    cfg = Config.fromfile(write_coco(tmp_path))
    cfg.train_dataloader.dataset = {
        "type": "RepeatDataset",
        "times": 2,
        "dataset": cfg.train_dataloader.dataset,
    }
    image, filed = read_sample(build_dataset(cfg, "train", as_filed=True)[1])
    assert filed.boxes.tolist() == [[5, 5, 25, 25]] and filed.labels.tolist() == [0]
    (filed_mask,) = map(to_pixels, filed.masks)
    assert filed_mask.shape == (40, 50) and filed_mask[6:24, 6:24].all()
    dataset = build_dataset(cfg, "train")
    assert len(dataset) == 6
    mirrored, trained = read_sample(dataset[1])
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    assert trained.boxes.tolist() == [[25, 5, 45, 25]]
    np.testing.assert_array_equal(to_pixels(trained.masks[0]), filed_mask[:, ::-1])


def test_segmentation_as_filed_and_as_trained_on(tmp_path):
    cfg = Config.fromfile(write_semantic(tmp_path))
    image, filed = read_sample(build_dataset(cfg, "train", as_filed=True)[0])
    mirrored, trained = read_sample(build_dataset(cfg, "train")[0])
    assert filed[0, 0] == 0 and filed[39, 0] == 2 and filed[0, 49] == 1
    np.testing.assert_array_equal(trained, filed[:, ::-1])
    np.testing.assert_array_equal(mirrored, image[:, ::-1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colours_come_out_as_rgb(dtype):
    image = np.zeros((4, 5, 3), dtype)
    image[..., 0] = 200  # blue for OpenCV
    picture, annotation = read_sample({"img": image})
    assert picture.dtype == np.uint8 and picture[0, 0].tolist() == [0, 0, 200]
    assert annotation is None


@pytest.mark.parametrize(
    "image",
    [np.ones((4, 5, 6), np.uint16), np.random.default_rng(0).normal(size=(4, 5, 3))],
    ids=["bands", "normalised"],
)
def test_others_are_stretched_to_a_picture(image):
    picture, _ = read_sample({"img": image})
    assert picture.shape == (4, 5, 3) and picture.dtype == np.uint8


def test_large_pictures_shrink_with_their_labels():
    image = np.zeros((LONGEST, 2 * LONGEST, 3), np.uint8)
    masks = np.zeros((1, LONGEST, 2 * LONGEST), bool)
    masks[0, 100:200, 400:800] = True
    boxes = np.array([[400.0, 100.0, 800.0, 200.0]])
    small, annotation = shrink(image, Objects(np.array([3]), boxes, masks=to_runs(masks)))
    assert small.shape == (LONGEST // 2, LONGEST, 3)
    assert annotation.boxes.tolist() == [[200, 50, 400, 100]]
    (mask,) = map(to_pixels, annotation.masks)
    assert mask.shape == small.shape[:2]
    assert mask[50:100, 200:400].all() and mask.sum() == 50 * 200
    _, none = shrink(image, Objects(np.zeros(0, int), np.zeros((0, 4)), masks=[]))
    assert none.masks == []
    _, labels = shrink(image, np.where(masks[0], 5, 255))
    assert np.unique(labels).tolist() == [5, 255] and labels.shape == small.shape[:2]
    assert shrink(small, labels)[1] is labels


def test_samples_of_a_sheet(tmp_path):
    dataset = build_dataset(Config.fromfile(write_semantic(tmp_path)), "train", as_filed=True)
    samples = list(draw_evenly(dataset, 2, num_classes=2))
    assert len(samples) == 2
    assert np.unique(samples[0][1]).tolist() == [0, 1, 255]  # sky is no class any more
    assert hide_unknown(None, 2) is None


@pytest.mark.parametrize(
    ("total", "count", "expected"), [(10, 4, [0, 3, 6, 9]), (2, 5, [0, 1]), (5, 1, [0])]
)
def test_indices_are_spread_evenly(total, count, expected):
    assert list(spread_evenly(total, count)) == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_order_of_colours_is_the_loaders(dtype):
    """OpenCV loads blue first, `LoadMultiBandImage` the file's order, `unchanged` opacity too."""
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 4)).astype(dtype)
    rgb = colours[..., :3]
    for item, is_bgr in (
        (rgb, False),
        (rgb[..., ::-1], True),
        (colours[..., [2, 1, 0, 3]], True),
    ):
        np.testing.assert_array_equal(read_sample({"img": item}, is_bgr)[0], rgb)
    grey = read_sample({"img": colours[..., 0]})[0]
    np.testing.assert_array_equal(grey, np.repeat(colours[..., :1], 3, axis=2))
