"""Made JPEGs: their size, polygons and label maps against one another and pycocotools."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from swin_mm.datasets.shapes import photos
from swin_mm.datasets.shapes.photos import write_photos

COUNT = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), COUNT, ["a", "b", "c"])


def test_images_are_jpegs_of_the_size_of_cocos(folder):
    paths = sorted((folder / "train").iterdir())
    assert [path.name for path in paths] == ["000000.jpg", "000001.jpg", "000002.jpg"]
    for path in paths:
        assert path.read_bytes()[:2] == b"\xff\xd8"
        assert 50_000 < path.stat().st_size < 300_000
        assert cv2.imread(str(path)).shape == (480, 640, 3)


def test_polygons_cover_what_shows_of_each_shape(folder):
    coco = COCO(str(folder / "annotations/instances_train.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["a", "b", "c"]
    for index in range(COUNT):
        labels = cv2.imread(str(folder / f"semantic/train/{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        found = coco.imgToAnns[index + 1]
        scene = photos._draw(index)
        assert 1 <= len(found) <= len(scene.masks)
        covered = np.zeros((480, 640), dtype=bool)
        for annotation in found:
            runs = coco_mask.frPyObjects(annotation["segmentation"], 480, 640)
            mask = coco_mask.decode(coco_mask.merge(runs)).astype(bool)
            covered |= mask
            left, top, width, height = annotation["bbox"]
            rows, columns = np.nonzero(mask)
            assert left - 1 <= columns.min() and columns.max() <= left + width
            assert top - 1 <= rows.min() and rows.max() <= top + height
            assert annotation["iscrowd"] == 0 and annotation["category_id"] in (1, 2, 3)
        shown = labels > 0
        assert (shown == scene.masks.any(0)).all()
        # Polygons fill the holes of rings, and leave out crumbs.
        assert (covered & shown).sum() > 0.95 * shown.sum()


def test_what_is_there_is_left_and_what_differs_is_drawn_anew(folder):
    path = folder / "train/000000.jpg"
    before = path.stat().st_mtime_ns
    write_photos(folder, COUNT, ["a", "b", "c"])
    assert path.stat().st_mtime_ns == before
    done = []
    write_photos(folder, 1, ["d"], lambda: done.append(1))
    content = json.loads((folder / "annotations/instances_train.json").read_text())
    assert path.stat().st_mtime_ns > before and done == [1]
    assert len(content["images"]) == 1
    assert {annotation["category_id"] for annotation in content["annotations"]} == {1}
    write_photos(folder, COUNT, ["a", "b", "c"])


@pytest.mark.parametrize(("count", "classes"), [(0, ["a"]), (2, [])], ids=["images", "classes"])
def test_nothing_to_draw_is_refused(tmp_path, count, classes):
    with pytest.raises(ValueError, match=r"one image and one class are needed, got count="):
        write_photos(tmp_path, count, classes)
