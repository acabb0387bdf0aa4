"""Masks as run lengths: what is stored is what was drawn, wherever it is moved."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from swin_mm.inference.run_length import RunLengthMasks, crop_masks, overlap

RING = np.array([[0, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]], dtype=bool)


def encode(masks):
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0], ids="{:.0%} set".format)
def test_mask_of_a_part_in_the_whole_image(share):
    """Against pycocotools' own encoding of the whole image, byte for byte."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width = map(int, rng.integers(1, 24, 2))
        top, left = int(rng.integers(height)), int(rng.integers(width))
        size = rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)
        masks = rng.random((2, *size)) < share
        whole = np.zeros((2, height, width), dtype=bool)
        whole[:, top : top + size[0], left : left + size[1]] = masks
        crops = crop_masks(masks, left, top)
        assert [crop.in_image(height, width) for crop in crops] == encode(whole)


def test_crop_is_tight_and_keeps_holes():
    (crop,) = crop_masks(RING[None], left=10, top=20)
    assert crop.region == (11, 20, 14, 23)
    assert np.array_equal(crop.pixels(crop.region), RING[:3, 1:])
    assert crop.pixels((12, 21, 14, 23)).tolist() == [[0, 1], [1, 1]]


def test_enlarged_crop():
    (crop,) = crop_masks(RING[None], left=100, scale=(10, 10))
    assert crop.region == (110, 0, 140, 30)
    pixels = crop.pixels(crop.region)
    assert pixels[15, 5] and not pixels[15, 15] and pixels[15, 25]
    assert pixels.sum() == pytest.approx(100 * RING.sum(), rel=0.05)
    (crop,) = crop_masks(np.zeros((1, 4, 4), dtype=bool), scale=(2.5, 2.5))
    assert crop.in_image(10, 10) == encode(np.zeros((1, 10, 10)))[0]


def test_regions_in_common():
    assert overlap((0, 0, 4, 6), (2, 1, 9, 3)) == (2, 1, 4, 3)
    assert overlap((0, 0, 4, 6), (4, 0, 8, 6)) is None


def test_masks_stand_in_instances():
    """As mmdet's hooks and visualiser use them."""
    pixels = np.random.default_rng(1).random((3, 5, 7)) < 0.5
    instances = InstanceData(scores=torch.tensor([0.1, 0.9, 0.5]))
    instances.masks = RunLengthMasks(encode(pixels), 5, 7)
    assert np.array_equal(instances.masks.to_ndarray(), pixels)
    good = instances[instances.scores > 0.3].cpu()
    assert np.array_equal(good.masks.astype(bool), pixels[1:])
    assert good.masks[0] == encode(pixels)[1]
    none = instances[instances.scores > 1]
    assert len(none.masks) == 0 and none.masks.to_ndarray().shape == (0, 5, 7)
