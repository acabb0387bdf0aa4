import copy
import random

import numpy as np
import pytest
from mmdet.datasets.transforms import LoadAnnotations as MmdetLoadAnnotations
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import TRANSFORMS
from pycocotools import mask as coco_mask

from swin_mm.datasets.transforms.load_annotations import LoadAnnotations

TRIANGLE = [[2.0, 3.0, 20.0, 5.0, 8.0, 18.0]]
TWO_PARTS = [[1.0, 1.0, 6.0, 1.0, 6.0, 6.0], [10.0, 10.0, 19.0, 11.0, 12.0, 17.0]]
RUNS = coco_mask.encode(np.asfortranarray(np.tri(24, 30, dtype=np.uint8)))
RUNS = {**RUNS, "counts": RUNS["counts"].decode()}


def load(kind: type, *masks, crowds=(), **kwargs) -> dict:
    instances = [
        dict(bbox=[1, 1, 9, 9], bbox_label=0, mask=mask, ignore_flag=int(i in crowds))
        for i, mask in enumerate(masks)
    ]
    results = dict(instances=copy.deepcopy(instances), ori_shape=(24, 30))
    return kind(with_mask=True, **kwargs).transform(results)


def test_polygons_stay():
    found = load(LoadAnnotations, TRIANGLE, TWO_PARTS)
    assert type(found["gt_masks"]) is PolygonMasks
    for masks, given in zip(found["gt_masks"].masks, (TRIANGLE, TWO_PARTS), strict=True):
        assert [list(part) for part in masks] == given
    drawn = load(MmdetLoadAnnotations, TRIANGLE, TWO_PARTS)["gt_masks"]
    assert (found["gt_masks"].to_ndarray() == drawn.to_ndarray()).all()


def test_an_image_with_run_lengths_has_bitmaps():
    ours = load(LoadAnnotations, TRIANGLE, RUNS)
    theirs = load(MmdetLoadAnnotations, TRIANGLE, RUNS)
    assert type(ours["gt_masks"]) is BitmapMasks
    assert (ours["gt_masks"].masks == theirs["gt_masks"].masks).all()
    assert ours["gt_ignore_flags"].tolist() == [False, False]
    # This is why.
    left_out = load(MmdetLoadAnnotations, TRIANGLE, RUNS, poly2mask=False)
    assert left_out["gt_ignore_flags"].tolist() == [False, True]


def test_crowds_do_not_count():
    found = load(LoadAnnotations, TRIANGLE, RUNS, crowds=[1])
    assert type(found["gt_masks"]) is PolygonMasks
    assert found["gt_ignore_flags"].tolist() == [False, True]


def test_bitmaps_if_asked_for():
    assert type(load(LoadAnnotations, TRIANGLE, poly2mask=True)["gt_masks"]) is BitmapMasks


@pytest.mark.parametrize("with_mask", [False, True])
def test_found_by_name(with_mask):
    built = TRANSFORMS.build(dict(type="swin_mm.LoadAnnotations", with_mask=with_mask))
    assert built.with_mask == with_mask and not built.poly2mask


def test_no_objects():
    found = load(LoadAnnotations)
    assert type(found["gt_masks"]) is PolygonMasks and len(found["gt_masks"]) == 0


def image_with(kind: type, first: object = TRIANGLE, **kwargs) -> dict:
    results = load(kind, first, TWO_PARTS, with_bbox=True, with_label=True, **kwargs)
    image = np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8)
    return dict(results, img=image, img_shape=(24, 30), img_id=1, img_path="a.png")


@pytest.mark.parametrize(
    "step",
    [
        dict(type="Expand", prob=1.0),
        dict(type="CopyPaste"),
        dict(type="RandomErasing", n_patches=2, ratio=0.3),
        dict(type="CachedMosaic", img_scale=(24, 30), prob=1.0, max_cached_images=4),
        dict(type="CachedMixUp", img_scale=(24, 30), prob=1.0, max_cached_images=4),
        dict(type="RandomFlip", prob=1.0),
        dict(type="Rotate", prob=1.0),
        dict(type="Pad", size=(40, 50)),
    ],
    ids=lambda step: step["type"],
)
def test_transforms_give_what_they_give_with_bitmaps(step):
    outcomes = []
    for kind in (LoadAnnotations, MmdetLoadAnnotations):
        transform = TRANSFORMS.build({**step, "_scope_": "mmdet"})
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002, it is what mmdet draws from
        for number in range(5):
            results = image_with(kind, TRIANGLE if number % 2 else RUNS)
            results["mix_results"] = [image_with(kind)]
            results = transform(results)
        outcomes.append(results)
    ours, theirs = outcomes
    assert (ours["img"] == theirs["img"]).all()
    assert (ours["gt_masks"].to_ndarray() == theirs["gt_masks"].to_ndarray()).all()
    assert (ours["gt_bboxes"].numpy() == theirs["gt_bboxes"].numpy()).all()


@pytest.mark.parametrize("kind", ["ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_polygons_move_with_the_image(kind):
    np.random.seed(3)  # noqa: NPY002
    moved = TRANSFORMS.build(dict(type=kind, prob=1.0, _scope_="mmdet"))(
        image_with(LoadAnnotations)
    )
    assert type(moved["gt_masks"]) is PolygonMasks
    drawn = moved["gt_masks"].to_ndarray()
    assert drawn.shape == (2, 24, 30)
    assert drawn.any((1, 2)).all()
    assert (drawn != image_with(LoadAnnotations)["gt_masks"].to_ndarray()).any()
