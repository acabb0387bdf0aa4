"""Small made-up data sets, sound until a test breaks them, and configs that read them."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from swin_mm.datasets.check import DatasetError, check_config, inspect_config

HEIGHT, WIDTH = 40, 50
CLASSES = ("cat", "dog")
COCO_CONFIG = """
default_scope = "mmdet"
dataset = dict(
    type="CocoDataset",
    data_root="{root}/",
    ann_file="train.json",
    data_prefix=dict(img="images/"),
    metainfo=dict(classes=("cat", "dog")),
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="RandomFlip", prob=1.0),
        dict(type="PackDetInputs"),
    ],
)
train_dataloader = dict(batch_size=1, dataset=dataset)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.4, 57.1, 57.4], bgr_to_rgb=True),
    head=dict(num_classes=2),
)
"""
SEMANTIC_CONFIG = """
default_scope = "mmseg"
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type="BaseSegDataset",
        data_root="{root}",
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=("grass", "road", "sky")),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomFlip", prob=1.0),
            dict(type="PackSegInputs"),
        ],
    ),
)
"""


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in names:
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_coco(root: Path) -> str:
    """Writes three images, four objects, and a config, whose path it returns."""
    write_images(root / "images", ["a.png", "b.png", "c.png"])
    square = [[5, 5, 25, 5, 25, 25, 5, 25]]
    coco = {
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate("abc")
        ],
        "annotations": [
            {
                "id": 1 + i,
                "image_id": i % 3,
                "category_id": 3 + 4 * (i == 2),
                "bbox": [5, 5, 20, 20],
                "area": 400,
                "iscrowd": 0,
                "segmentation": square,
            }
            for i in range(4)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    (root / "train.json").write_text(json.dumps(coco))
    path = root / "detector.py"
    path.write_text(COCO_CONFIG.format(root=root))
    return str(path)


def change_coco(root: Path, change) -> None:
    """Lets a function change the annotations."""
    coco = json.loads((root / "train.json").read_text())
    change(coco)
    (root / "train.json").write_text(json.dumps(coco))


def write_semantic(root: Path) -> str:
    """Writes three images with grass (0) above and sky (2) below, and a config."""
    write_images(root / "images", ["a.jpg", "b.jpg", "c.jpg"])
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[20:] = 2
    labels[:, 40:] = 1
    (root / "labels").mkdir()
    for name in "abc":
        Image.fromarray(labels).save(root / "labels" / f"{name}.png")
    path = root / "segmentor.py"
    path.write_text(SEMANTIC_CONFIG.format(root=root))
    return str(path)


def paint(path: Path, value: int, size: tuple[int, int] = (3, 3)) -> None:
    """Gives the upper left corner of a label map a value."""
    labels = np.array(Image.open(path))
    labels[: size[0], : size[1]] = value
    Image.fromarray(labels).save(path)


def refuse(cfg: Config, *words: str, is_alone: bool = True) -> None:
    """The check must end in one line with some words; a thorough one lists it, and no other fault.

    Unless `is_alone`, others follow from it.
    """
    with pytest.raises(DatasetError) as error:
        check_config(cfg)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    first, *others = inspect_config(cfg).faults
    assert first.startswith(message) and (not others) == is_alone, (first, others)
