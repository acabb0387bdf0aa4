"""Sliced inference against the same detector on the whole image."""

import numpy as np
import pytest
import torch
from id_map_detector import IdMapDetector, as_image
from mmdet.datasets.transforms import PackDetInputs
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement
from pycocotools import mask as coco_mask

import swin_mm
from swin_mm.inference import sliced as module
from swin_mm.inference.sliced import SlicedInference

SIZES = dict(slice_height=40, slice_width=50, overlap_height_ratio=0.3, overlap_width_ratio=0.3)


def wrap(detector=None, **settings):
    settings = {"full_image": False, **SIZES, **settings}
    return SlicedInference(detector or IdMapDetector(), pipeline=[PackDetInputs()], **settings)


def draw(name):
    """Maps of object numbers, 120 x 170; slices begin at rows 0, 28, 56, 80, columns 0, 35, ..."""
    numbers = np.zeros((120, 170), dtype=np.uint8)
    y, x = np.mgrid[:120, :170]
    if name == "inside one slice":
        numbers[10:20, 8:25] = 1
    elif name == "cut into two":
        numbers[8:22, 25:75] = 1
    elif name == "cut into four":
        numbers[12:60, 15:80] = 1
    elif name == "through all columns":
        numbers[8:14] = 1
    elif name == "a ring over many slices":
        radius = np.hypot(y - 60, x - 85)
        numbers[(radius > 30) & (radius < 50)] = 1
    elif name == "two arms in one slice":
        numbers[10:30, 20:60] = 1
        numbers[16:24, 30:60] = 0
    elif name == "touching, of two classes":
        numbers[8:22, 25:75] = 1
        numbers[22:34, 25:75] = 2
    elif name == "touching, of one class":
        numbers[8:22, 25:75] = 1
        numbers[22:34, 25:75] = 4
    elif name == "many":
        for number in range(1, 30):
            top, left = (37 * number) % 105, (53 * number) % 150
            numbers[top : top + 8 + number % 9, left : left + 5 + number % 14] = number
    else:
        assert name == "nothing"
    return numbers


SCENES = [
    "nothing",
    "inside one slice",
    "cut into two",
    "cut into four",
    "through all columns",
    "a ring over many slices",
    "two arms in one slice",
    "touching, of two classes",
    "touching, of one class",
    "many",
]


def as_set(instances, masks):
    """What was found, in no order and with scores left out of the comparison of objects."""
    return {
        (label, *box, mask.tobytes())
        for label, box, mask in zip(
            instances.labels.tolist(), instances.bboxes.tolist(), masks.astype(bool), strict=True
        )
    }


@pytest.mark.parametrize("settings", [{}, {"full_image": True}, {"match_metric": "IOU"}], ids=str)
@pytest.mark.parametrize("scene", SCENES)
def test_objects_are_those_of_the_whole_image(scene, settings):
    numbers = draw(scene)
    found = wrap(**settings).predict_image(as_image(numbers))
    whole = IdMapDetector()._detect(numbers, {"ori_shape": numbers.shape}, 1.0)
    assert as_set(found, found.masks.to_ndarray()) == as_set(whole, whole.masks.numpy())
    assert torch.equal(found.scores, whole.scores.sort(descending=True).values)


# Without masks, boxes of one class that overlap much cannot be told apart.
@pytest.mark.parametrize("scene", [s for s in SCENES if s != "many"])
def test_boxes_alone(scene):
    numbers = draw(scene)
    found = wrap(IdMapDetector(with_masks=False)).predict_image(as_image(numbers))
    whole = IdMapDetector()._detect(numbers, {"ori_shape": numbers.shape}, 1.0)
    assert "masks" not in found
    assert sorted(found.bboxes.tolist()) == sorted(whole.bboxes.tolist())


def test_class_agnostic_joins_classes():
    """The second slice takes the second part of one object for another class."""

    class Fickle(IdMapDetector):
        def _detect(self, numbers, meta, weight):
            found = super()._detect(numbers, meta, weight)
            found.labels += len(self.sizes) - 1
            return found

    image = as_image(draw("cut into two")[:40, :85])
    assert len(wrap(Fickle()).predict_image(image)) == 2
    found = wrap(Fickle(), class_agnostic=True).predict_image(image)
    assert found.bboxes.tolist() == [[25, 8, 75, 22]]


def test_slices_without_overlap_cannot_be_joined():
    found = wrap(overlap_width_ratio=0.0).predict_image(as_image(draw("cut into two")))
    assert sorted(found.bboxes.tolist()) == [[25, 8, 50, 22], [50, 8, 75, 22]]


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 6), (4, 2), (20, 1)])
def test_slices_come_in_batches(batch_size, batches):
    numbers = draw("many")[:60, :120]  # 2 x 3 slices
    detector, done = IdMapDetector(), []
    wrapped = wrap(detector, batch_size=batch_size)
    found = wrapped.predict_image(as_image(numbers), progress=lambda *n: done.append(n))
    assert detector.sizes == [(40, 50)] * 6
    assert len(done) == batches and done[-1] == (6, 6)
    assert len(found) == len(np.unique(numbers)) - 1


def test_small_image_is_one_slice():
    detector = IdMapDetector()
    found = wrap(detector, full_image=True).predict_image(as_image(draw("many")[:30, :45]))
    assert detector.sizes == [(30, 45)] and len(found)


def test_large_objects_come_from_the_whole_image():
    """A detector that knows an object only when it sees both of its ends."""

    class NeedsAll(IdMapDetector):
        def _detect(self, numbers, meta, weight):
            found = super()._detect(numbers, meta, weight)
            sides = found.bboxes[:, 2] - found.bboxes[:, 0]
            return found[(sides == 100) | (sides < 10)]

    numbers = np.zeros((60, 170), dtype=np.uint8)
    numbers[10:30, 20:120] = 1
    numbers[35:40, 60:65] = 2
    found = wrap(NeedsAll()).predict_image(as_image(numbers))
    assert found.bboxes.tolist() == [[60, 35, 65, 40]]
    found = wrap(NeedsAll(), full_image=True).predict_image(as_image(numbers))
    assert found.bboxes.tolist() == [[20, 10, 120, 30], [60, 35, 65, 40]]


def test_whole_image_is_shrunk_to_bound_memory(monkeypatch):
    """Masks of a detector have the size of its image."""
    monkeypatch.setattr(module, "MAX_PIXELS", 60 * 85)
    numbers = np.zeros((120, 170), dtype=np.uint8)
    numbers[20:100, 30:140] = 1
    detector = IdMapDetector()
    wrapped = wrap(detector, slice_height=1, slice_width=120, full_image=True)
    (found,) = wrapped._predict_slices(as_image(numbers), [(0, 0, 170, 120)], 0, {})
    assert detector.sizes == [(60, 85)]
    assert found.bboxes.tolist() == [[30, 20, 140, 100]]
    (mask,) = found.masks
    assert mask.region == (30, 20, 140, 100) and mask.pixels(mask.region).all()


@pytest.mark.parametrize(("height", "width"), [(30, 40), (40, 60)])
def test_object_of_a_shrunk_image_ends_with_it(monkeypatch, height, width):
    """Sides of the small image are rounded, up or down: the last pixel stays the last one."""
    monkeypatch.setattr(module, "MAX_PIXELS", height * width / 2.9)
    numbers = np.zeros((height, width), dtype=np.uint8)
    numbers[height // 2 :, width // 2 :] = 1
    found = wrap(slice_height=1, slice_width=1, full_image=True)
    parts = found._predict_slices(as_image(numbers), [(0, 0, width, height)], 0, {})
    assert parts[0].bboxes[:, 2:].tolist() == [[width, height]]
    (mask,) = parts[0].masks
    assert mask.region[2:] == (width, height)
    pixels = coco_mask.decode(mask.in_image(height, width))
    assert pixels[-1, -1] and not pixels[: height // 2 - 2].any()


def test_batch_of_images_as_in_a_test():
    """Two images of different sizes; samples keep what they know of them."""
    images = [as_image(draw("many")), as_image(draw("cut into four")[:, :100])]
    pack = PackDetInputs(meta_keys=("img_id", "ori_shape", "img_shape"))
    data = [
        pack({"img": image, "img_id": 7 + i, "ori_shape": image.shape[:2]})
        for i, image in enumerate(images)
    ]
    samples = wrap().test_step(pseudo_collate(data))
    assert [sample.img_id for sample in samples] == [7, 8]
    for sample, image in zip(samples, images, strict=True):
        assert sample.pred_instances.masks.to_ndarray().shape[1:] == image.shape[:2]
        assert len(sample.pred_instances) == len(np.unique(image)) - 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap_height_ratio": 1.0}, "overlap_height_ratio must be .* got 1.0"),
        ({"slice_width": 0}, "slice_width must be at least 1 pixel"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"match_metric": "GIOU"}, "match_metric must be one of .*'IOS', 'IOU'.*, got 'GIOU'"),
        ({"match_threshold": 0}, "match_threshold must be above 0, at most 1, got 0"),
        ({"match_threshold": 1.5}, "match_threshold must be above 0, at most 1, got 1.5"),
    ],
)
def test_what_cannot_be_sliced_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        wrap(**settings)


def test_model_without_boxes_is_refused():
    class Segmentor(torch.nn.Module):
        def test_step(self, data):
            return [BaseDataElement(pred_sem_seg=0) for _ in data["inputs"]]

    with pytest.raises(ValueError, match="predicts none; for semantic segmentation set"):
        wrap(Segmentor()).predict_image(as_image(draw("many")))


def test_found_by_name():
    assert swin_mm.SlicedInference is SlicedInference
