"""Cityscapes' label maps against its own package, where that is installed, and mmseg's classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import CityscapesDataset
from PIL import Image
from torchvision.datasets import Cityscapes

from swin_mm.datasets.prepare.prepare import convert_cityscapes

NAME = "gtFine/train/aachen/aachen_000000_000019_gtFine"


@pytest.fixture
def maps(tmp_path) -> Path:
    """A map with every id, in a folder like Cityscapes'."""
    path = tmp_path / f"{NAME}_labelIds.png"
    path.parent.mkdir(parents=True)
    ids = np.arange(34, dtype=np.uint8).repeat(10).reshape(17, 20)
    Image.fromarray(ids).save(path)
    return tmp_path


def made(folder: Path) -> np.ndarray:
    return np.array(Image.open(folder / f"{NAME}_labelTrainIds.png"))


def test_classes_are_numbered_as_mmseg_names_them(maps):
    convert_cityscapes(maps)
    names = {label.id: label.name for label in Cityscapes.classes}
    ids = np.array(Image.open(maps / f"{NAME}_labelIds.png"))
    classes = CityscapesDataset.METAINFO["classes"]
    for value in range(34):
        trained = set(made(maps)[ids == value].tolist())
        expected = classes.index(names[value]) if names[value] in classes else 255
        assert trained == {expected}, names[value]
    assert made(maps).dtype == np.uint8 and sorted(set(made(maps).flat)) == [*range(19), 255]


def test_equals_drawing_the_polygons(maps):
    """mmseg's converter draws them with the publisher's package."""
    drawing = pytest.importorskip(
        "cityscapesscripts.preparation.json2labelImg", reason="not installed"
    )
    random = np.random.default_rng(0)
    names = [label.name for label in Cityscapes.classes] + ["cargroup"]
    objects = [
        {"label": name, "polygon": random.integers(-5, 70, (5, 2)).tolist()} for name in names
    ]
    polygons = maps / f"{NAME}_polygons.json"
    polygons.write_text(json.dumps({"imgHeight": 48, "imgWidth": 64, "objects": objects}))
    drawing.json2labelImg(str(polygons), str(maps / f"{NAME}_labelIds.png"), "ids")
    convert_cityscapes(maps)
    drawing.json2labelImg(str(polygons), str(maps / "drawn.png"), "trainIds")
    drawn = np.array(Image.open(maps / "drawn.png"))
    np.testing.assert_array_equal(made(maps), drawn)
    assert len(np.unique(drawn)) > 10


def test_what_is_made_is_left_alone(maps):
    convert_cityscapes(maps)
    path = maps / f"{NAME}_labelTrainIds.png"
    path.write_bytes(b"mine")
    convert_cityscapes(maps)
    assert path.read_bytes() == b"mine"
    assert not list(maps.rglob("*.partial"))
