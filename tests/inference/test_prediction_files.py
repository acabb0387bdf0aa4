"""Which images are predicted, and what the files say."""

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from swin_mm.inference import prediction as module
from swin_mm.inference.prediction import Prediction, draw_prediction
from swin_mm.inference.prediction_files import (
    PredictionFiles,
    find_images,
    write_video,
)
from swin_mm.inference.sources import PredictError
from swin_mm.structures import Objects, Segments, to_runs

CLASSES, PALETTE = ("red", "grün"), [(255, 0, 0), (0, 255, 0)]


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


class TestFindImages:
    def test_folders_are_searched_through(self, tmp_path):
        touch(*(tmp_path / "in" / name for name in ("b.JPG", "a.png", "sub/c.tif", "notes.txt")))
        found = find_images([str(tmp_path / "in")], tmp_path / "out")
        assert list(found) == ["a", "b", "sub/c"]
        assert found["sub/c"] == tmp_path / "in" / "sub" / "c.tif"

    def test_a_file_is_taken_whatever_it_is_called(self, tmp_path):
        touch(tmp_path / "photo.JPEG2")
        assert list(find_images([str(tmp_path / "photo.JPEG2")], tmp_path)) == ["photo"]

    @pytest.mark.parametrize("out", ["found", "../here/found", "{}/found"])
    @pytest.mark.parametrize("images", [".", "../here", "{}", "**/*.png"])
    def test_pictures_of_an_earlier_run_are_no_images(self, tmp_path, monkeypatch, images, out):
        here = tmp_path / "here"
        touch(here / "a.png", here / "found" / "pictures" / "b.png")
        monkeypatch.chdir(here)
        assert list(find_images([images.format(here)], Path(out.format(here)))) == ["a"]

    def test_one_image_named_twice_is_one(self, tmp_path):
        touch(tmp_path / "a.png")
        assert len(find_images([str(tmp_path), str(tmp_path / "a.png")], tmp_path / "out")) == 1

    @pytest.mark.parametrize(
        ("paths", "message"),
        [
            (["none"], "there is no image or folder none"),
            (["empty"], r"no images in empty: no file below it ends in .*\.jpg"),
            (["twice"], r"predictions of twice/a.jpg and twice/a.png would have the same name"),
            (["twice/a.jpg", "other/a.jpg"], "would have the same name: .* another --out"),
        ],
    )
    def test_refused(self, tmp_path, monkeypatch, paths, message):
        monkeypatch.chdir(tmp_path)
        touch(*(tmp_path / name for name in ("empty/x.txt", "twice/a.jpg", "twice/a.png")))
        touch(tmp_path / "other" / "a.jpg")
        with pytest.raises(PredictError, match=message):
            find_images(paths, tmp_path / "out")


def two_objects(height=30, width=40):
    masks = np.zeros((2, height, width), dtype=np.uint8)
    masks[0, 4:10, 5:25] = 1
    masks[1, 8:20, 15:35] = 1
    return masks, Objects(
        boxes=np.array([[5, 4, 25, 10], [15, 8, 35, 20]], dtype=np.float32),
        scores=np.array([0.9, 0.6], dtype=np.float32),
        labels=np.array([0, 1]),
        masks=[coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
    )


def test_objects_in_cocos_format(tmp_path):
    masks, found = two_objects()
    boxes_alone = Objects(found.labels[1:], found.boxes[1:], found.scores[1:])
    files = PredictionFiles(tmp_path, CLASSES, PALETTE, draw=False)
    picture = np.zeros((30, 40, 3), dtype=np.uint8)
    name = str(tmp_path / "in" / "a.jpg")
    files.add("sub/a", Prediction(found, picture, CLASSES, PALETTE, name))
    files.add("b", Prediction(boxes_alone, picture, CLASSES, PALETTE))
    content = json.loads(files.close().read_text())
    assert content["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "grün"}]
    image = {"file_name": name, "height": 30, "width": 40, "id": 1}
    assert content["images"][0] == image
    first, _, last = content["annotations"]
    run = first.pop("segmentation")
    assert np.array_equal(coco_mask.decode(run), masks[0])
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 4, 20, 6],
        "area": 120,
        "iscrowd": 0,
        "score": 0.9,
    }
    assert (last["id"], last["image_id"], last["area"]) == (3, 2, 240)
    assert "segmentation" not in last
    assert not list(tmp_path.glob("pictures"))


@pytest.mark.parametrize("highest", [1, 300], ids=["8 bits", "16 bits"])
def test_label_maps(tmp_path, highest):
    labels = np.zeros((30, 40), dtype=np.int64)
    labels[5:] = highest
    files = PredictionFiles(tmp_path, CLASSES, PALETTE, draw=False)
    picture = np.zeros((30, 40, 3), dtype=np.uint8)
    files.add("sub/a", Prediction(labels, picture, CLASSES, PALETTE))
    content = json.loads(files.close().read_text())
    assert content["images"][0]["label_map"] == "labels/sub/a.png"
    assert content["classes"][1] == {"label": 1, "name": "grün", "colour": [0, 255, 0]}
    written = cv2.imread(str(tmp_path / "labels" / "sub" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(written, labels)


def test_segments_in_cocos_panoptic_format(tmp_path):
    ids = np.ones((30, 40), dtype=np.int32)
    ids[5:9, 7:20] = 2
    found = Segments(ids, np.array([1, 0]))
    files = PredictionFiles(tmp_path, CLASSES, PALETTE, draw=False, things=("red",))
    picture = np.zeros((30, 40, 3), dtype=np.uint8)
    files.add("sub/a", Prediction(found, picture, CLASSES, PALETTE))
    content = json.loads(files.close().read_text())
    (annotation,) = content["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (1, "sub/a.png")
    first, second = annotation["segments_info"]
    assert (first["id"], first["category_id"], first["area"]) == (1, 2, 30 * 40 - 4 * 13)
    expected = {"id": 2, "category_id": 1, "area": 52, "bbox": [7, 5, 13, 4], "iscrowd": 0}
    assert second == expected
    assert [category["isthing"] for category in content["categories"]] == [1, 0]
    written = cv2.imread(str(tmp_path / "panoptic/sub/a.png"))[..., ::-1]  # RGB
    assert np.array_equal(written.astype(int) @ [1, 256, 65536], ids)
    assert "label_map" not in content["images"][0] and "classes" not in content


class TestPictures:
    def draw(self, tmp_path, found, size=(300, 400)):
        path = tmp_path / "deep" / "picture.png"
        picture = np.zeros((*size, 3), dtype=np.uint8)
        draw_prediction(picture, found, path, CLASSES, PALETTE)
        assert not picture.any()  # the image itself stays as it was
        return cv2.imread(str(path))[..., ::-1]  # RGB

    def scaled(self, factor=10):
        masks, found = two_objects()
        large = masks.repeat(factor, 1).repeat(factor, 2)
        return replace(found, boxes=found.boxes * factor, masks=to_runs(large))

    def test_masks_are_tinted_the_surest_on_top(self, tmp_path):
        drawn = self.draw(tmp_path, self.scaled())
        assert drawn.shape == (300, 400, 3)
        shade = int(module.MASK_OPACITY * 255)
        assert np.abs(drawn[60, 100] - [shade, 0, 0]).max() <= 1  # of the first alone
        assert np.abs(drawn[150, 300] - [0, shade, 0]).max() <= 1
        red, green, _ = drawn[90, 200].astype(int)  # of both
        assert red == shade and 0 < green < red
        assert not drawn[250, 100].any()

    def test_label_maps_are_tinted_and_explained(self, tmp_path):
        labels = np.zeros((300, 400), dtype=np.int64)
        labels[:, 200:] = 1
        drawn = self.draw(tmp_path, labels)
        assert drawn[150, 100, 0] > 100 > drawn[150, 100, 1]
        assert drawn[150, 300, 1] > 100 > drawn[150, 300, 0]
        assert drawn.shape[0] > 300 and drawn.shape[1] == 400
        for colour in PALETTE:
            assert (drawn[300:] == colour).all(-1).any()

    def test_segments_have_borders_and_a_legend(self, tmp_path):
        ids = np.zeros((300, 400), dtype=np.int32)
        ids[:, 200:] = 1
        ids[100:, 200:] = 2
        drawn = self.draw(tmp_path, Segments(ids, np.array([1, 1])))
        assert (drawn[100, 210:390] == 255).all() and (drawn[10:290, 200] == 255).all()
        assert drawn[50, 300, 1] > 100 > drawn[50, 300, 0]
        assert not drawn[150, 100].any()  # no segment
        below = drawn[300:]
        assert (below == PALETTE[1]).all(-1).any() and not (below == PALETTE[0]).all(-1).any()

    @pytest.mark.parametrize("kind", ["objects", "label map"])
    def test_large_images_are_drawn_smaller(self, tmp_path, monkeypatch, kind):
        monkeypatch.setattr(module, "MAX_PIXELS", 150 * 200)
        found = self.scaled() if kind == "objects" else np.ones((300, 400), dtype=np.int64)
        drawn = self.draw(tmp_path, found)
        legend = 0 if kind == "objects" else drawn.shape[0] - 150
        assert drawn.shape == (150 + legend, 200, 3) and (legend > 0) == (kind == "label map")
        assert drawn[75, 150, 1] > 100

    def test_boxes_alone_and_nothing(self, tmp_path):
        found = replace(self.scaled(), masks=None)
        assert self.draw(tmp_path, found).any()
        none = Objects(np.zeros(0, dtype=int), np.zeros((0, 4)), np.zeros(0), [])
        assert not self.draw(tmp_path, none).any()


def test_a_name_that_is_no_utf8_loses_no_predictions(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    files = PredictionFiles(tmp_path, CLASSES, PALETTE)
    found = Objects(np.array([1]), np.ones((1, 4), np.float32), np.ones(1, np.float32))
    image = np.zeros((8, 8, 3), np.uint8)
    files.add(Path(name).stem, Prediction(found, image, CLASSES, PALETTE, name))
    content = json.loads(files.close().read_bytes())
    assert [image["file_name"] for image in content["images"]] == [name]
    assert [one["name"] for one in content["categories"]] == list(CLASSES)


def test_what_cannot_be_written_is_told(tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    found = Prediction(np.zeros((32, 32), np.uint8), image, CLASSES, PALETTE)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder.png"):
        found.save(tmp_path / "folder.png")
    video = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 5, (32, 32))
    writer.write(image)
    writer.release()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OSError, match=r"cannot write a video .*folder.mp4"):
        write_video(tmp_path / "folder.mp4", "mp4v", video, [image])
