"""Made mistakes in small panoptic data; what is sound is compared with what mmdet reads."""

import json
from pathlib import Path

import numpy as np
import pytest
from broken_data import HEIGHT, WIDTH, write_images
from mmdet.datasets import CocoPanopticDataset
from mmengine.config import Config
from PIL import Image

from swin_mm.datasets.check import DatasetError, check_config, inspect_config
from swin_mm.datasets.check.coco import read_ids
from swin_mm.datasets.reader import Reader

SETTINGS = {
    "type": "CocoPanopticDataset",
    "ann_file": "panoptic.json",
    "data_prefix": {"img": "images/", "seg": "maps/"},
    "metainfo": {
        "classes": ("cat", "grass"),
        "thing_classes": ("cat",),
        "stuff_classes": ("grass",),
    },
}


@pytest.fixture
def root(tmp_path) -> Path:
    """Two images, each with a cat (id 70000) on grass (id 5)."""
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    (tmp_path / "maps").mkdir()
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[20:] = (5, 0, 0)
    colours[5:25, 5:25] = (112, 17, 1)  # 112 + 17 * 256 + 65536
    for name in "ab":
        Image.fromarray(colours).save(tmp_path / "maps" / f"{name}.png")
    segments = [
        {"id": 70000, "category_id": 3, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 5, "category_id": 8, "bbox": [0, 20, 50, 20], "area": 900, "iscrowd": 0},
    ]
    content = {
        "images": [
            {"id": i, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH}
            for i, n in enumerate("ab")
        ],
        "annotations": [
            {"image_id": i, "file_name": f"{n}.png", "segments_info": segments}
            for i, n in enumerate("ab")
        ],
        "categories": [
            {"id": 3, "name": "cat", "isthing": 1},
            {"id": 8, "name": "grass", "isthing": 0},
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return tmp_path


def config(root: Path, **settings) -> Config:
    pipeline = [{"type": "LoadPanopticAnnotations"}]
    dataset = {**SETTINGS, "data_root": f"{root}/", "pipeline": pipeline, **settings}
    return Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}})


def change(root: Path, function) -> None:
    content = json.loads((root / "panoptic.json").read_text())
    function(content)
    (root / "panoptic.json").write_text(json.dumps(content))


def test_sound_data_is_counted_as_mmdet_reads_it(root):
    found = inspect_config(config(root), ("train",))
    split = found.summary.splits["train"]
    assert (found.faults, found.summary.warnings()) == ([], [])
    settings = {key: value for key, value in SETTINGS.items() if key != "type"}
    dataset = CocoPanopticDataset(data_root=f"{root}/", **settings)
    labels = [s["category"] for i in range(2) for s in dataset.get_data_info(i)["segments_info"]]
    assert [dataset.metainfo["classes"][label] for label in labels] == ["cat", "grass"] * 2
    assert (split.images, split.instances, split.per_class) == (2, 4, {"cat": 2, "grass": 2})
    check_config(config(root))


FAULTS = {
    "category": (
        lambda c: c["annotations"][0]["segments_info"][1].update(category_id=99),
        "annotation 0:5 has category_id=99",
    ),
    "image": (lambda c: c["annotations"][0].update(image_id=99), "name images that the file does"),
    "id twice in an image": (
        lambda c: c["annotations"][1]["segments_info"][1].update(id=70000),
        "1 ids of annotations are used twice: 1:70000",
    ),
    "segment without a box": (
        lambda c: c["annotations"][0]["segments_info"][0].pop("bbox"),
        "a segment of image 0 lacks bbox; every one needs area, bbox, category_id, id",
    ),
    "objects instead": (
        lambda c: c["annotations"][0].pop("segments_info"),
        "annotations[0] lacks segments_info",
    ),
    "no isthing": (lambda c: c["categories"][1].pop("isthing"), "categories[1] lacks isthing"),
    "class": (lambda c: c["categories"][1].update(name="gras"), "it lacks 'grass' (is it 'gras'?)"),
    "nothing": (
        lambda c: [a["segments_info"].clear() for a in c["annotations"]],
        "has no object of the config's classes: there is nothing to learn",
    ),
    "segment that is not drawn": (
        lambda c: c["annotations"][0]["segments_info"][0].update(id=70001),
        "maps/a.png does not have the segments 70001; write the maps again",
    ),
}


@pytest.mark.parametrize(("function", "words"), FAULTS.values(), ids=FAULTS)
def test_fault(root, function, words):
    change(root, function)
    faults = inspect_config(config(root), ("train",)).faults
    assert words in faults[0], faults
    with pytest.raises(DatasetError):
        check_config(config(root))


def test_maps(root):
    (root / "maps" / "a.png").unlink()
    Image.open(root / "maps" / "b.png").crop((0, 0, 50, 30)).save(root / "maps" / "b.png")
    faults = inspect_config(config(root), ("train",)).faults
    assert "1 of 2 map files are missing" in faults[0]
    assert "b.png has (30, 50) pixels, its image (40, 50)" in faults[1] and len(faults) == 2


def test_unlisted_segments_are_a_warning(root):
    change(root, lambda c: c["annotations"][0]["segments_info"].pop())
    found = inspect_config(config(root), ("train",))
    assert found.faults == [] and len(found.summary.warnings()) == 1
    assert "1 maps have segments that the annotations do not list" in found.summary.warnings()[0]


def test_ids_are_read_as_they_are_written(root):
    ids = read_ids(Reader(), str(root / "maps" / "a.png"))
    assert np.unique(ids).tolist() == [0, 5, 70000] and (ids == 70000).sum() == 400


def test_the_built_in_shapes_are_sound(tiny_shapes):
    dataset = {
        "type": "swin_mm.ShapesPanopticDataset",
        "data_root": f"{tiny_shapes}/",
        "ann_file": "annotations/panoptic_train.json",
        "data_prefix": {"img": "train/", "seg": "panoptic/train/"},
        "pipeline": [{"type": "LoadPanopticAnnotations"}],
    }
    cfg = Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}})
    found = inspect_config(cfg, ("train",))
    assert (found.faults, found.summary.warnings()) == ([], [])
    assert found.summary.splits["train"].images == 12
