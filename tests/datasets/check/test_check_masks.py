"""Masks of COCO files: run lengths against pycocotools, and every kind of fault."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from swin_mm.datasets.check import DatasetError
from swin_mm.datasets.check.masks import check_masks, read_counts

HEIGHT, WIDTH = 40, 50
SQUARE = [[5, 5, 25, 5, 25, 25, 5, 25]]
BOX = [5, 5, 20, 20]


def encode(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def runs(counts) -> dict:
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def coco(*masks) -> dict:
    return {
        "images": [{"id": 9, "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"id": index + 1, "image_id": 9, "bbox": BOX, "area": 1, "segmentation": mask}
            for index, mask in enumerate(masks)
        ],
    }


@pytest.mark.parametrize("density", [0.0, 0.001, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (500, 700)])
def test_run_lengths_are_read_as_pycocotools_writes_them(size, density):
    mask = np.random.default_rng(0).random(size) < density
    changes = np.flatnonzero(np.diff(mask.T.ravel().astype(int)))
    expected = np.diff(np.concatenate([[-1], changes, [mask.size - 1]]))
    if mask.T.ravel()[0]:
        expected = np.concatenate([[0], expected])
    np.testing.assert_array_equal(read_counts(encode(mask)), expected)
    assert read_counts(expected.tolist()).tolist() == expected.tolist()


@pytest.mark.parametrize("counts", ["", "é", " 1", "~", "1P", "PPPPPPPPPPPPPPP0", 7, None, ["1"]])
def test_what_are_no_run_lengths(counts):
    assert read_counts(counts) is None


def test_sound_masks_pass():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:25, 5:25] = True
    counts = read_counts(encode(mask)).tolist()
    assert check_masks(coco(SQUARE, runs(encode(mask)), runs(counts)), "a.json") == []


FAULTS = {
    "absent": (None, "annotation 1 has no segmentation"),
    "empty": ([], "annotation 1 has no segmentation"),
    "flat": (SQUARE[0], "is a flat list; it must be a list of polygons"),
    "text": ("5 5 25 5", "neither a list of polygons nor run lengths"),
    "half": ({"counts": "abc"}, "neither a list of polygons nor run lengths"),
    "size": ({"size": [WIDTH, HEIGHT], "counts": [2000]}, "has size [50, 40], its image [40, 50]"),
    "size as floats": ({"size": [40.0, 50], "counts": [2000]}, "has size [40.0, 50]"),
    "run lengths as bools": (runs([True] * 2000), "has no run lengths"),
    "too short": (runs([100, 10]), "run lengths that add up to 110, not the 2000 pixels"),
    "negative": (runs([2010, -10]), "run lengths that add up to 2000"),
    "no run lengths": (runs("~~~"), "has no run lengths, not the 2000 pixels"),
    "cut short": (runs(encode(np.eye(HEIGHT, WIDTH))[:-9]), "run lengths that add up to"),
    "not a number": ([[5, 5, float("nan"), 5, 25, 25]], "something else than finite numbers"),
    "text in a polygon": ([["5", 5, 25, 5, 25, 25]], "something else than finite numbers"),
}


@pytest.mark.parametrize(("mask", "words"), FAULTS.values(), ids=FAULTS)
def test_faults_of_masks_are_named(mask, words):
    with pytest.raises(DatasetError) as error:
        check_masks(coco(mask), "a.json")
    assert str(error.value).startswith("a.json: ") and words in str(error.value)


def test_faults_are_counted_by_kind():
    with pytest.raises(DatasetError) as error:
        check_masks(coco(None, SQUARE, runs([3]), None, None), "a.json")
    assert "annotation 1 has no segmentation" in str(error.value)
    assert "(3 annotations in all); also, the mask of annotation 3 has run" in str(error.value)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([[5, 5, 25, 5]], "1 masks have no polygon of three points, and are left out"),
        ([[5, 5, 25, 5, 25, 25, 7]], "1 masks have no polygon of three points, and are left out"),
        (runs([2000]), "1 masks have no pixel, though their box has"),
        ([[5, 5, 25, 5, 25, 35]], "1 masks reach beyond their box"),
        ([[5, 5, 25, 5, 25, 25], [1, 5, 9, 9, 8, 8]], "1 masks reach beyond their box"),
        ([[5, 30, 25, 30, 25, 35]], "1 masks lie apart from their box"),
    ],
    ids=["line", "odd", "no pixel", "below", "left", "apart"],
)
def test_oddity_is_a_warning_of_the_close_look(mask, words):
    assert check_masks(coco(SQUARE, mask, SQUARE), "a.json") == [f"a.json: {words}"]


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([runs([2000])] * 3, "3 of 3 masks have no pixel"),
        ([[[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]] * 2, "2 of 2 masks lie apart .* not as parts of"),
        ([[[0, 35, 9, 35, 9, 39]], SQUARE], "1 of 2 masks lie apart from their box"),
    ],
    ids=["no pixel", "parts of the image", "half"],
)
def test_masks_that_are_not_those_of_the_boxes_are_refused(masks, words):
    with pytest.raises(DatasetError, match=words):
        check_masks(coco(*masks), "a.json")
