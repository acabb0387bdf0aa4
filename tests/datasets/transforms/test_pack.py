import numpy as np
import pytest
import torch
from mmdet.datasets.transforms import PackDetInputs as MmdetPackDetInputs
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import TRANSFORMS

from swin_mm.datasets.transforms.pack import PackDetInputs


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


def test_without_an_image():
    given = results(IMAGE)
    del given["img"]
    assert list(PackDetInputs().transform(given)) == ["data_samples"]


def test_found_by_name():
    keys = ("img_id",)
    built = TRANSFORMS.build(dict(type="swin_mm.PackDetInputs", meta_keys=keys))
    assert built.meta_keys == keys
