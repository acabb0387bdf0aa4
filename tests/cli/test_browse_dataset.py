"""Pictures of what pipelines yield, of detection and segmentation."""

from pathlib import Path

import numpy as np
import pytest
from broken_data import write_coco, write_semantic
from PIL import Image

from swin_mm.cli.main import main


@pytest.fixture
def browse(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its status and what it prints."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["browse-dataset", *arguments])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_boxes_and_masks_are_drawn(browse, tmp_path):
    status, text = browse(write_coco(tmp_path))
    assert status == 0
    folder = "work_dirs/detector/browse_train"
    assert (
        text.splitlines()[-1] == f"3 pictures in {folder}, all on one sheet in {folder}/sheet.png"
    )
    assert names(folder) == ["0000_a.png", "0001_b.png", "0002_c.png", "sheet.png"]
    assert Image.open(f"{folder}/0000_a.png").size == (50, 40)


def test_pictures_are_augmented_and_labelled(browse, tmp_path):
    """The pipeline always mirrors; the box at 5 to 25 of 50 pixels is then at 25 to 45."""
    assert browse(write_coco(tmp_path), "--output-dir", "out", "--not-show")[0] == 0
    drawn = np.array(Image.open("out/0001_b.png").convert("RGB")).astype(int)
    mirrored = np.array(Image.open(tmp_path / "images" / "b.png"))[:, ::-1].astype(int)
    same = np.abs(drawn - mirrored).max(axis=2) <= 2
    assert same[30:, :20].mean() > 0.95  # far from the object
    assert not same[10:20, 30:40].any()  # within its mask


def test_label_maps_are_drawn(browse, tmp_path):
    status, _ = browse(write_semantic(tmp_path), "--output-dir", "out", "--number", "2")
    assert status == 0
    assert names("out") == ["0000_a.png", "0001_c.png", "sheet.png"]
    drawn = np.array(Image.open("out/0000_a.png").convert("RGB")).astype(int)
    image = np.array(Image.open(tmp_path / "images" / "a.jpg"))[:, ::-1].astype(int)
    assert np.abs(drawn - image).mean() > 10  # the map lies over all of it


def test_repeat_draws_other_augmentations(browse, tmp_path):
    config = write_coco(tmp_path)
    random = ("--cfg-options", "train_dataloader.dataset.pipeline.2.prob=0.5")
    arguments = ("--number", "1", "--repeat", "5", *random)
    assert browse(config, "--output-dir", "one", *arguments)[0] == 0
    assert len(names("one")) == 6
    pictures = {Path("one", name).read_bytes() for name in names("one")[:-1]}
    assert len(pictures) == 2  # mirrored or not
    assert browse(config, "--output-dir", "two", *arguments)[0] == 0
    for name in names("one"):  # the seed makes it the same again
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()


def test_flags_of_mmdet_are_taken(browse, tmp_path):
    arguments = ("--output-dir", "out", "--not-show", "--show-interval", "2")
    assert browse(write_coco(tmp_path), *arguments)[0] == 0


def test_split_that_is_not_there(browse, tmp_path):
    config = write_coco(tmp_path)
    status, text = browse(config, "--split", "val")
    assert status == 1 and f"{config} has no val_dataloader" in text
