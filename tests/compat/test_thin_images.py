"""Images and label maps of one pixel on a side."""

import cv2
import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadAnnotations as MmcvLoadAnnotations
from mmdet.datasets.transforms import LoadAnnotations as MmdetLoadAnnotations
from mmdet.structures.mask import BitmapMasks
from mmseg.datasets.transforms import LoadAnnotations as MmsegLoadAnnotations

from swin_mm.datasets.transforms.pack import PackDetInputs, PackSegInputs

SIZES = [(1, 1), (1, 7), (7, 1), (3, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    "transform",
    [
        MmcvLoadAnnotations(with_bbox=False, with_label=False, with_seg=True),
        MmdetLoadAnnotations(with_bbox=False, with_label=False, with_seg=True),
        MmsegLoadAnnotations(),
    ],
    ids=["mmcv", "mmdet", "mmseg"],
)
def test_label_maps_keep_their_sides(transform, size, tmp_path):
    labels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    path = str(tmp_path / "labels.png")
    cv2.imwrite(path, labels)
    results = transform(
        dict(seg_map_path=path, ori_shape=size, reduce_zero_label=False, label_map=None)
        | dict(seg_fields=[])
    )
    np.testing.assert_array_equal(results["gt_seg_map"], labels)


def test_no_side_is_scaled_to_nothing():
    image = np.zeros((2, 300, 3), np.uint8)
    assert mmcv.imrescale(image, (64, 64)).shape == (1, 64, 3)
    assert mmcv.rescale_size((300, 2), (64, 64)) == (64, 1)
    masks = BitmapMasks(np.ones((1, 2, 300), np.uint8), 2, 300).rescale((64, 64))
    assert masks.masks.shape == (1, 1, 64)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pack", [PackDetInputs, PackSegInputs])
def test_flipped_images_are_packed(pack, size, axis):
    image = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3)
    results = {"img": np.flip(image, axis), "gt_seg_map": np.flip(image[..., 0], axis)}
    packed = pack(meta_keys=())(results)
    wanted = image[::-1] if axis == 0 else image[:, ::-1]
    np.testing.assert_array_equal(packed["inputs"].permute(1, 2, 0), wanted)
    (labels,) = packed["data_samples"].gt_sem_seg.values()
    np.testing.assert_array_equal(labels[0], wanted[..., 0])
