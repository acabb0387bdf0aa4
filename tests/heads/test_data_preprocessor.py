"""The batched preprocessors against mmdet's and mmseg's."""

import copy

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MmdetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.testing import demo_mm_inputs
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor as MmsegDataPreProcessor
from mmseg.structures import SegDataSample
from torch.utils._python_dispatch import TorchDispatchMode

from swin_mm.heads.data_preprocessor import DetDataPreprocessor, SegDataPreProcessor

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
SEG_NORMALISED = dict(mean=MEAN, std=STD, bgr_to_rgb=True)
SEG_ARGUMENTS = {
    "a size": SEG_NORMALISED | dict(size=(70, 64)),
    "a divisor": SEG_NORMALISED | dict(size_divisor=32, pad_val=-1.5, seg_pad_val=-1),
    "the largest": SEG_NORMALISED | dict(size_divisor=1, bgr_to_rgb=False),
    "rgb to bgr": dict(size_divisor=7, rgb_to_bgr=True, pad_val=3),
    "statistics without a dot": dict(mean=[1, 2, 3], std=[4, 5, 6], size=(64, 50)),
    "one mean for all": dict(mean=[100.0], std=[50.0], size_divisor=1),
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
    assert SegDataPreProcessor()._non_blocking
    assert not SegDataPreProcessor(non_blocking=False)._non_blocking


def label_maps(dtype=torch.int64) -> list[SegDataSample]:
    generator = torch.Generator().manual_seed(1)
    samples = []
    for size in SIZES:
        labels, edges = torch.randint(7, (2, 1, *size), generator=generator)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels.to(dtype)))
        sample.set_data(dict(gt_edge_map=PixelData(data=edges)))
        depth = torch.rand(1, *size, generator=generator)
        sample.set_data(dict(gt_depth_map=PixelData(data=depth)))
        samples.append(sample)
    return samples


def assert_same_samples(ours: list, theirs: list) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.metainfo == b.metainfo
        assert a.keys() == b.keys()
        for name in sorted(a.keys()):
            assert torch.equal(a.get(name).data, b.get(name).data)
            assert a.get(name).data.dtype == b.get(name).data.dtype


@pytest.mark.parametrize("labels", [torch.uint8, torch.int64], ids=["narrow labels", "int64"])
@pytest.mark.parametrize("bands_last", [False, True], ids=["bands first", "bands last"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("case", SEG_ARGUMENTS)
def test_training_batches_are_those_of_mmseg_to_the_bit(case, dtype, bands_last, labels):
    kwargs = SEG_ARGUMENTS[case]
    given = images(dtype, bands_last)
    ours = SegDataPreProcessor(**kwargs)(dict(inputs=given, data_samples=label_maps(labels)), True)
    theirs = MmsegDataPreProcessor(**kwargs)(dict(inputs=given, data_samples=label_maps()), True)
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert ours["inputs"].dtype == torch.float32
    assert ours["inputs"].is_contiguous(memory_format=torch.channels_last) == bands_last
    assert_same_samples(ours["data_samples"], theirs["data_samples"])


@pytest.mark.parametrize("bands", [1, 3, 4, 12])
@pytest.mark.parametrize("bands_last", [False, True], ids=["bands first", "bands last"])
def test_any_number_of_bands_comes_out_as_of_mmseg(bands, bands_last):
    """All of one size, so that the batch is stacked without padding; three bands are turned."""
    given = [torch.rand(9, 11, bands) * 255 for _ in range(3)]
    given = [x.permute(2, 0, 1) for x in given]
    if not bands_last:
        given = [x.contiguous() for x in given]
    kwargs = dict(mean=list(range(bands)), std=[2.0 + b for b in range(bands)], bgr_to_rgb=True)
    ours, theirs = (
        kind(**kwargs)(dict(inputs=given))["inputs"]
        for kind in (SegDataPreProcessor, MmsegDataPreProcessor)
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "test_cfg",
    [None, dict(), dict(size=(40, 64)), dict(size_divisor=32), dict(size=(20, 20))],
    ids=["none", "empty", "size", "divisor", "a size that is smaller"],
)
def test_tests_pad_as_mmseg_does(test_cfg):
    kwargs = SEG_NORMALISED | dict(size=(512, 512), test_cfg=test_cfg, pad_val=2)
    given = images()[::2]
    results = []
    for kind in (SegDataPreProcessor, MmsegDataPreProcessor):
        samples = label_maps()[::2]
        results.append(kind(**kwargs)(dict(inputs=given, data_samples=samples)))
    ours, theirs = results
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert_same_samples(ours["data_samples"], theirs["data_samples"])


def test_batches_are_augmented_in_training_alone():
    def swap(inputs, samples):
        return inputs.flip(0), samples[::-1]

    kwargs = dict(size_divisor=1, batch_augments=swap)
    data = dict(inputs=images(), data_samples=label_maps())
    found = SegDataPreProcessor(**kwargs)(data, training=True)
    plain = SegDataPreProcessor(size_divisor=1)(data, training=True)
    assert torch.equal(found["inputs"], plain["inputs"].flip(0))
    assert_same_samples(found["data_samples"], plain["data_samples"][::-1])
    alike = dict(inputs=images()[::2])
    assert SegDataPreProcessor(**kwargs)(alike)["data_samples"] is None


def test_segmentors_images_given_are_not_written_to():
    given = [torch.rand(3, 32, 32)]
    kept = given[0].clone()
    SegDataPreProcessor(mean=MEAN, std=STD)(dict(inputs=given))
    assert torch.equal(given[0], kept)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randint(256, (2, 3, 33, 40), dtype=torch.uint8),
        [torch.rand(3, 9, 9), torch.randint(256, (3, 9, 9), dtype=torch.uint8)],
    ],
    ids=["a batch already", "several types"],
)
def test_unusual_inputs_come_out_as_of_mmseg(inputs):
    ours, theirs = (
        kind(**SEG_NORMALISED)(dict(inputs=inputs))["inputs"]
        for kind in (SegDataPreProcessor, MmsegDataPreProcessor)
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("kwargs", "training", "message"),
    [
        (dict(), True, "one of size and size_divisor"),
        (dict(size=(9, 9), size_divisor=2), True, "one of size and size_divisor"),
        (dict(size=(40, 40)), True, r"fit into size=\(40, 40\), got \[\(37, 50\)"),
        (dict(), False, r"of one size outside training, got \[\(37, 50\), \(64, 20\)\]"),
        (dict(mean=[1.0] * 4, std=[1.0] * 4, size_divisor=1), True, "for 4 bands, an image has 3"),
    ],
    ids=["no size", "two sizes", "too large", "sizes in a test", "bands"],
)
def test_segmentors_batches_that_do_not_fit_are_refused(kwargs, training, message):
    data = dict(inputs=images(), data_samples=label_maps())
    with pytest.raises(ValueError, match=message):
        SegDataPreProcessor(**kwargs)(data, training)


def test_training_without_label_maps_is_refused():
    with pytest.raises(ValueError, match="data_samples are needed"):
        SegDataPreProcessor(size_divisor=1)(dict(inputs=images()), training=True)


def test_the_whole_batch_of_a_segmentor_is_normalised_at_once():
    with Operators() as operators:
        SegDataPreProcessor(**SEG_NORMALISED, size_divisor=1)(
            dict(inputs=images(), data_samples=label_maps()), training=True
        )
    assert sorted(operators.names) == ["aten.div_", "aten.flip", "aten.sub_"]


@pytest.mark.parametrize("kind", [DetDataPreprocessor, SegDataPreProcessor])
@pytest.mark.parametrize("path", ["meta", "to_empty", "to_empty of a real one"])
def test_statistics_survive_construction_without_memory(kind, path):
    arguments = NORMALISED if kind is DetDataPreprocessor else SEG_NORMALISED
    wanted, image = kind(**arguments), torch.randint(256, (3, 9, 9), dtype=torch.uint8)
    with torch.device("cpu" if path == "to_empty of a real one" else "meta"):
        model = torch.nn.Sequential(kind(**arguments))
    if path.startswith("to_empty"):
        model.to_empty(device="cpu")
    found = model[0](dict(inputs=[image]))["inputs"]
    assert torch.equal(found, wanted(dict(inputs=[image]))["inputs"])


def test_statistics_set_by_hand_stay():
    model = torch.nn.Sequential(DetDataPreprocessor(**NORMALISED))
    model[0].mean += 1
    wanted = model[0].mean.clone()
    assert torch.equal(model.double().float()[0].mean, wanted)
    assert torch.equal(model.to_empty(device="cpu")[0].mean, wanted)
