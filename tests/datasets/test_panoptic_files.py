"""Panoptic maps: from mmdet's numbers to COCO's files, against other code."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from pycocotools import mask as coco_mask

from swin_mm.datasets.panoptic import to_categories, to_png, to_segments_info
from swin_mm.structures import Segments, read_segments

# Two objects of class 0, one of class 2, class 1 as stuff; 3 is no class.
NUMBERS = torch.full((1, 20, 30), 3)
NUMBERS[:, :5] = 1
NUMBERS[:, 8:12, 3:9] = 1000
NUMBERS[:, 8:12, 9:14] = 2000
NUMBERS[:, 15:18, 20:30] = 3002


def segments() -> Segments:
    return read_segments(PixelData(sem_seg=NUMBERS), num_classes=3)


def test_segments_are_numbered_from_one():
    found = segments()
    assert found.labels.tolist() == [1, 0, 0, 2]
    for number, theirs in enumerate((1, 1000, 2000, 3002), start=1):
        assert ((found.ids == number) == (NUMBERS[0] == theirs).numpy()).all()
    assert ((found.ids == 0) == (NUMBERS[0] == 3).numpy()).all()
    labels = found.label_map()
    assert set(np.unique(labels)) == {0, 1, 2, 255}
    assert ((labels == 0) == ((NUMBERS[0] == 1000) | (NUMBERS[0] == 2000)).numpy()).all()


def test_an_index_that_is_ignored_is_no_segment():
    found = PixelData(sem_seg=NUMBERS, metainfo=dict(ignore_index=2))
    assert read_segments(found, num_classes=4).labels.tolist() == [1, 3, 0, 0]


def test_the_number_of_classes_is_no_segment_beside_another_index_that_is_ignored():
    found = PixelData(sem_seg=NUMBERS, metainfo=dict(ignore_index=255))
    assert read_segments(found, num_classes=3).labels.tolist() == [1, 0, 0, 2]


def test_nothing_found():
    found = read_segments(PixelData(sem_seg=torch.full((1, 4, 5), 7)), num_classes=7)
    assert found.labels.tolist() == [] and not found.ids.any()
    assert to_segments_info(found) == [] and (found.label_map() == 255).all()


def test_many_ids_are_read_back_from_colours():
    """The oracle: panopticapi's rule, red + 256 green + 256^2 blue."""
    ids = np.array([[0, 1, 255, 256, 65535, 65536, 70000]], dtype=np.int32)
    png = to_png(Segments(ids, np.zeros(70000, dtype=np.int64)))
    assert png.dtype == np.uint8 and np.array_equal(png.astype(int) @ [1, 256, 65536], ids)


def test_boxes_and_areas_are_those_of_pycocotools():
    found = segments()
    entries = to_segments_info(found)
    assert [entry["category_id"] for entry in entries] == [2, 1, 1, 3]
    for entry in entries:
        run = coco_mask.encode(np.asfortranarray(found.ids == entry["id"]))
        assert entry["area"] == coco_mask.area(run)
        assert entry["bbox"] == coco_mask.toBbox(run).tolist()
        assert entry["iscrowd"] == 0


def test_borders_are_between_segments():
    expected = np.zeros((20, 30), dtype=bool)
    expected[5] = True  # the stuff's lower side
    expected[8:12, [3, 9, 14]] = True
    expected[[8, 12], 3:14] = True
    expected[15:18, 20] = True
    expected[[15, 18], 20:] = True
    assert np.array_equal(segments().borders(), expected)


@pytest.mark.parametrize("things", [("a",), None])
def test_categories(things):
    found = to_categories(("a", "b"), [(1, 2, 3), (4, 5, 6)], things)
    assert [category["id"] for category in found] == [1, 2]
    assert [category["color"] for category in found] == [[1, 2, 3], [4, 5, 6]]
    kinds = [category.get("isthing") for category in found]
    assert kinds == ([1, 0] if things else [None, None])
