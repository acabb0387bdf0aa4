"""The batched preprocessor against mmdet's."""

import copy

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from torch.utils._python_dispatch import TorchDispatchMode

from swin_mm.models.data_preprocessor import DetDataPreprocessor

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = [(37, 50), (64, 20), (37, 50)]


def images(dtype=torch.uint8, bands_last=False) -> list[torch.Tensor]:
    found = [torch.randint(256, (3, *size)).to(dtype) for size in SIZES]
    if bands_last:
        found = [x.permute(1, 2, 0).contiguous().permute(2, 0, 1) for x in found]
    return found


def both(inputs, training=False, **kwargs) -> tuple[dict, dict]:
    results = []
    for kind in (DetDataPreprocessor, MmdetDataPreprocessor):
        samples = [DetDataSample() for _ in inputs]
        data = dict(inputs=copy.deepcopy(inputs), data_samples=samples)
        results.append(kind(**kwargs)(data, training))
    return tuple(results)


NORMALISED = dict(mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32)
ARGUMENTS = {
    "as in recipes": NORMALISED,
    "padded with a value": NORMALISED | dict(pad_value=-1.5),
    "order kept": NORMALISED | dict(bgr_to_rgb=False, pad_size_divisor=1),
    "rgb to bgr": NORMALISED | dict(bgr_to_rgb=False, rgb_to_bgr=True),
    "not normalised": dict(pad_size_divisor=7, pad_value=3),
}


@pytest.mark.parametrize("bands_last", [False, True], ids=["bands first", "bands last"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("case", ARGUMENTS)
def test_batches_are_those_of_mmdet_to_the_bit(case, dtype, bands_last):
    given = images(dtype, bands_last)
    ours, theirs = both(given, **ARGUMENTS[case])
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert ours["inputs"].dtype == torch.float32
    assert ours["inputs"].is_contiguous(memory_format=torch.channels_last) == bands_last
    for a, b in zip(ours["data_samples"], theirs["data_samples"], strict=True):
        assert a.metainfo == b.metainfo


def test_annotations_are_padded_as_by_mmdet():
    data = demo_mm_inputs(2, [(3, 40, 50), (3, 30, 60)], with_mask=True, with_semantic=True)
    kwargs = NORMALISED | dict(pad_mask=True, pad_seg=True)
    ours, theirs = (
        kind(**kwargs)(copy.deepcopy(data), training=True)
        for kind in (DetDataPreprocessor, MmdetDataPreprocessor)
    )
    assert torch.equal(ours["inputs"], theirs["inputs"])
    for a, b in zip(ours["data_samples"], theirs["data_samples"], strict=True):
        assert (a.gt_instances.masks.masks == b.gt_instances.masks.masks).all()
        assert a.gt_instances.masks.masks.shape[1:] == (64, 64)
        assert torch.equal(a.gt_sem_seg.sem_seg, b.gt_sem_seg.sem_seg)


def test_images_given_are_not_written_to():
    given = [torch.rand(3, 32, 32)]
    kept = given[0].clone()
    DetDataPreprocessor(mean=MEAN, std=STD)(dict(inputs=given))
    assert torch.equal(given[0], kept)


@pytest.mark.parametrize(
    "inputs",
    [torch.randint(256, (2, 3, 33, 40), dtype=torch.uint8), [*images(), torch.rand(3, 9, 9)]],
    ids=["a batch already", "several types"],
)
def test_what_is_left_to_mmengine(inputs):
    ours, theirs = both(inputs, **NORMALISED)
    assert torch.equal(ours["inputs"], theirs["inputs"])


class Operators(TorchDispatchMode):
    """Counts operators that do arithmetic or gather."""

    COUNTED = ("aten.sub", "aten.sub_", "aten.div", "aten.div_", "aten.index", "aten.flip")

    def __init__(self) -> None:
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).rsplit(".", 1)[0]
        if name in self.COUNTED:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def test_the_whole_batch_is_normalised_at_once():
    with Operators() as operators:
        DetDataPreprocessor(**NORMALISED)(dict(inputs=images()))
    assert sorted(operators.names) == ["aten.div_", "aten.flip", "aten.sub_"]


def test_copies_are_not_waited_for_unless_told():
    assert DetDataPreprocessor()._non_blocking
    assert not DetDataPreprocessor(non_blocking=False)._non_blocking
