"""Errors of transforms name the transform, the image, and what they were given."""

import numpy as np
import pytest
from mmcv.transforms import BaseTransform, Compose, RandomChoice
from mmdet.datasets import transforms
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmseg.datasets.transforms import RandomMosaic

from swin_mm.compat.transform_errors import TransformError

SIDE = 32


def loaded(**changes):
    """What LoadImageFromFile and LoadAnnotations give for an image with one object."""
    results = {
        "img": np.zeros((SIDE, SIDE, 3), np.uint8),
        "img_shape": (SIDE, SIDE),
        "ori_shape": (SIDE, SIDE),
        "img_path": "some/image.png",
        "gt_bboxes": HorizontalBoxes(np.array([[2, 2, 9, 9]], np.float32)),
        "gt_bboxes_labels": np.array([0]),
        "gt_ignore_flags": np.array([False]),
        **changes,
    }
    return {key: value for key, value in results.items() if value is not None}


def masks(count=1):
    return BitmapMasks(np.ones((count, SIDE, SIDE), np.uint8), SIDE, SIDE)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Mosaic(img_scale=(SIDE, SIDE)),
        transforms.MixUp(img_scale=(SIDE, SIDE)),
        transforms.CopyPaste(),
        RandomMosaic(prob=1.0, img_scale=(SIDE, SIDE)),
        RandomChoice([[transforms.Mosaic(img_scale=(SIDE, SIDE))]]),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_mixing_without_other_images(transform):
    with pytest.raises(TransformError, match="on some/image.png: .*mix_results.*, given img, "):
        transform(loaded())


@pytest.mark.parametrize(
    ("transform", "missing"),
    [
        (transforms.MinIoURandomCrop(), "gt_bboxes"),
        (transforms.MinIoURandomCrop(), "img"),
        (transforms.FilterAnnotations(by_mask=True), "gt_masks"),
        (transforms.YOLOXHSVRandomAug(), "img"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_missing_input(transform, missing):
    with pytest.raises(TransformError) as caught:
        transform(loaded(**{missing: None}))
    raised, _, given = str(caught.value).partition(", given ")
    assert missing in raised and missing not in given.split(", ")


def test_packed_too_early():
    pipeline = Compose([transforms.PackDetInputs(meta_keys=()), transforms.CutOut(1, (4, 4))])
    with pytest.raises(TransformError, match="CutOut got an image that is packed"):
        pipeline(loaded())


@pytest.mark.parametrize(
    ("name", "key", "remedy"),
    [
        ("Mosaic", "gt_masks", "use CachedMosaic, or set with_mask"),
        ("Mosaic", "gt_seg_map", "remove it, or set with_seg"),
        ("MixUp", "gt_masks", "use CachedMixUp, or set with_mask"),
        ("RandomShift", "gt_masks", "remove it, or set with_mask"),
        ("CachedMosaic", "gt_seg_map", "remove it, or set with_seg"),
    ],
)
def test_annotations_that_would_no_longer_fit(name, key, remedy):
    transform = getattr(transforms, name)()
    results = loaded(mix_results=[loaded()] * 3, **{key: masks()})
    with pytest.raises(TransformError, match=f"{name} leaves {key} as it is.*{remedy}"):
        transform(results)


@pytest.mark.parametrize("name", ["CachedMosaic", "CachedMixUp"])
def test_cached_forms_mix_masks(name):
    """The mask of each object has the extent of its box, whichever image it is from."""
    np.random.seed(0)  # noqa: NPY002
    transform = getattr(transforms, name)(img_scale=(SIDE, SIDE), prob=1.0)
    for number in range(6):
        mask = np.zeros((1, SIDE, SIDE), np.uint8)
        mask[:, 4 : 20 + number, 6 : 24 + number] = 1
        box = np.array([[6, 4, 24 + number, 20 + number]], np.float32)
        results = transform(
            loaded(gt_masks=BitmapMasks(mask, SIDE, SIDE), gt_bboxes=HorizontalBoxes(box))
        )
    assert len(results["gt_masks"]) == len(results["gt_bboxes"]) > 1
    assert results["gt_masks"].masks.shape[1:] == results["img"].shape[:2]
    extents = results["gt_masks"].get_bboxes("hbox").tensor
    np.testing.assert_allclose(extents, results["gt_bboxes"].tensor, atol=2)


class DropBox(BaseTransform):
    def transform(self, results):
        return {**results, "gt_bboxes": results["gt_bboxes"][:0]}


def test_counts_of_objects_must_agree():
    with pytest.raises(TransformError, match="DropBox on .*'gt_bboxes': 0, .*'gt_masks': 1"):
        DropBox()(loaded(gt_masks=masks()))


class Fail(BaseTransform):
    def __init__(self, error):
        self.error = error

    def transform(self, results):
        raise self.error


def test_any_other_error_says_where():
    with pytest.raises(TransformError, match=r"Fail on some/image.png: ZeroDiv.*: x \(.*py:\d+\)"):
        Fail(ZeroDivisionError("x"))(loaded())


def test_errors_of_the_system_pass():
    with pytest.raises(FileNotFoundError, match="^x$"):
        Fail(FileNotFoundError("x"))(loaded())
