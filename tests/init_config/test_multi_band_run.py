"""Four bands of 16 bits from the files to pictures of predictions, by the commands."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from swin_mm.cli import init_config, test, train
from swin_mm.datasets.shapes import draw_scene
from swin_mm.datasets.shapes.write import add_scene

IMAGES = 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_bands(folder):
    """Writes shapes as TIFFs: red, green, blue and, as a sensor might, how near things are."""
    coco = {"images": [], "annotations": [], "categories": [dict(id=1, name="shape")]}
    for kind in ("tiff", "labels"):
        (folder / kind).mkdir()
    for index in range(IMAGES):
        scene = draw_scene(index + 20, "tiny")
        labels = (scene.label_map() > 0).astype(np.uint8)
        colours = scene.image.astype(np.uint16) * 120 + 700
        near = np.where(labels, 9_000, 2_000).astype(np.uint16)
        bands = np.concatenate([colours, near[..., None]], axis=2)
        tifffile.imwrite(
            folder / "tiff" / f"{index:06d}.tif",
            bands,
            photometric="minisblack",
            planarconfig="contig",
            compression="lzw",
        )
        Image.fromarray(labels).save(folder / "labels" / f"{index:06d}.png")
        add_scene(coco, scene, f"{index:06d}.tif")
    for annotation in coco["annotations"]:
        annotation["category_id"] = 1
    (folder / "all.json").write_text(json.dumps(coco))


@pytest.mark.slow
def test_a_detector_of_four_bands_trains_and_draws(folder):
    write_bands(folder)
    init_config.main(["--coco", "all.json", "--images", "tiff", "--preset", "small"])
    train.main(["my_config.py", "--cfg-options", "train_cfg.max_epochs=1"])
    weights = "work_dirs/my_config/epoch_1.pth"
    test.main(["my_config.py", weights, "--show-dir", "drawn"])
    check_pictures(folder / "work_dirs" / "my_config")


@pytest.mark.slow
def test_a_segmentor_of_four_bands_trains_and_draws(folder):
    write_bands(folder)
    init_config.main(["--masks", "labels", "--images", "tiff", "--preset", "small"])
    steps = ["train_cfg.max_iters=2", "default_hooks.checkpoint.interval=2"]
    train.main(["my_config.py", "--cfg-options", *steps])
    test.main(["my_config.py", "work_dirs/my_config/iter_2.pth", "--show-dir", "drawn"])
    check_pictures(folder / "work_dirs" / "my_config")


def check_pictures(work_dir):
    """Checks that pictures show colours, stretched from 16 bits to the range of bytes."""
    assert (work_dir / "predictions.png").stat().st_size > 10_000
    metrics = json.loads((work_dir / "metrics.json").read_text())["metrics"]
    assert {"coco/bbox_mAP", "mIoU"} & metrics.keys()
    drawn = sorted(work_dir.glob("*/drawn/*.png"))
    assert len(drawn) == 2
    picture = np.array(Image.open(drawn[0]).convert("RGB"))
    assert picture.min() < 30 and picture.max() > 220 and picture.std() > 20
