import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import TRANSFORMS
from mmseg.datasets.transforms import PackSegInputs as MmsegPackSegInputs

from swin_mm.datasets.transforms.pack import PackDetInputs, PackSegInputs


def results(image: np.ndarray) -> dict:
    return dict(
        img=image,
        img_id=3,
        img_path="x.jpg",
        ori_shape=image.shape[:2],
        img_shape=image.shape[:2],
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        gt_bboxes=HorizontalBoxes(torch.tensor([[1.0, 2, 3, 4], [0, 0, 5, 5]])),
        gt_bboxes_labels=np.array([2, 0]),
        gt_ignore_flags=np.array([False, True]),
    )


IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [IMAGE, IMAGE[:, ::-1], IMAGE[..., 0], IMAGE[..., :1], IMAGE.astype(np.float32)],
    ids=["plain", "flipped", "grey", "one band", "floats"],
)
def test_same_as_mmdets(image):
    ours, theirs = (
        kind().transform(results(image)) for kind in (PackDetInputs, MmdetPackDetInputs)
    )
    assert list(ours) == list(theirs)
    assert ours["inputs"].dtype == theirs["inputs"].dtype
    assert torch.equal(ours["inputs"], theirs["inputs"])
    a, b = ours["data_samples"], theirs["data_samples"]
    assert a.metainfo == b.metainfo
    for part in ("gt_instances", "ignored_instances"):
        assert torch.equal(a.get(part).labels, b.get(part).labels)
        assert torch.equal(a.get(part).bboxes.tensor, b.get(part).bboxes.tensor)


def test_image_is_not_copied():
    image = IMAGE.copy()
    packed = PackDetInputs().transform(results(image))
    image[2, 3, 1] = 77
    assert packed["inputs"][1, 2, 3] == 77


def test_results_without_an_image_are_packed():
    given = results(IMAGE)
    del given["img"]
    assert list(PackDetInputs().transform(given)) == ["data_samples"]


def test_found_by_name():
    keys = ("img_id",)
    built = TRANSFORMS.build(dict(type="swin_mm.PackDetInputs", meta_keys=keys))
    assert built.meta_keys == keys


LABELS = np.random.default_rng(1).integers(0, 256, (7, 9), dtype=np.uint8)


def seg_results(image: np.ndarray, labels: np.ndarray | None) -> dict:
    given = dict(img=image, ori_shape=(7, 9), img_shape=image.shape[:2], reduce_zero_label=True)
    if labels is not None:
        given |= dict(gt_seg_map=labels)
    if labels is not None and labels.ndim == 2:
        given |= dict(gt_edge_map=labels > 9, gt_depth_map=labels * 0.5)
    return given


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (LABELS, torch.uint8),
        (LABELS[:, ::-1], torch.uint8),
        (LABELS.astype(np.int32), torch.int64),
        (np.stack([LABELS] * 2), torch.int64),
        (None, None),
    ],
    ids=["plain", "flipped", "wide", "two maps", "none"],
)
@pytest.mark.parametrize("image", [IMAGE, IMAGE[:, ::-1], IMAGE[..., 0]], ids=["a", "b", "grey"])
def test_same_as_mmsegs_but_for_the_width_of_labels(image, labels, dtype):
    ours, theirs = (
        kind().transform(seg_results(image, labels)) for kind in (PackSegInputs, MmsegPackSegInputs)
    )
    assert list(ours) == list(theirs)
    assert ours["inputs"].dtype == theirs["inputs"].dtype
    assert torch.equal(ours["inputs"], theirs["inputs"])
    a, b = ours["data_samples"], theirs["data_samples"]
    assert a.metainfo == b.metainfo
    assert {*a.keys()} == {*b.keys()}
    for name in sorted(a.keys()):
        assert torch.equal(a.get(name).data.to(b.get(name).data.dtype), b.get(name).data)
    if labels is not None:
        assert a.gt_sem_seg.data.dtype == dtype


def test_images_and_label_maps_of_segmentors_are_not_copied():
    image, labels = IMAGE.copy(), LABELS.copy()
    packed = PackSegInputs().transform(seg_results(image, labels))
    image[2, 3, 1], labels[4, 5] = 77, 78
    assert packed["inputs"][1, 2, 3] == 77
    assert packed["data_samples"].gt_sem_seg.data[0, 4, 5] == 78


def test_segmentors_without_an_image():
    given = seg_results(IMAGE, LABELS)
    del given["img"]
    assert list(PackSegInputs().transform(given)) == ["data_samples"]
