"""The command: what it prints and writes, and its exit status."""

from pathlib import Path

import pytest
from broken_data import change_coco, write_coco, write_semantic
from PIL import Image

from swin_mm.cli.main import main


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its status and what it prints."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["check-dataset", *arguments])
        return status, capsys.readouterr().out

    return run


def test_sound_detection_data(check, tmp_path):
    status, text = check(write_coco(tmp_path))
    assert status == 0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "train 3 4 0" in lines  # images, objects, images without
    assert "0 cat 3" in lines and "1 dog 1" in lines
    assert lines[-2:] == [
        "train: pictures in work_dirs/detector/data/train.png",
        "0 faults, 0 warnings",
    ]
    assert Image.open("work_dirs/detector/data/train.png").width > 500


def test_sound_segmentation_data(check, tmp_path):
    status, text = check(write_semantic(tmp_path), "--output-dir", "out")
    assert status == 0
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "train 3 label maps 0" in lines and "2 sky 40.00%" in lines
    assert Image.open("out/train.png").height > 200


def test_faults_are_counted_and_named(check, tmp_path):
    config = write_coco(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(b"\x89PNG")
    change_coco(tmp_path, lambda coco: coco["annotations"][0].update(bbox=[1, 2]))
    status, text = check(config, "--output-dir", "out")
    assert status == 1
    assert f"fault: {tmp_path}/train.json: annotation 1 has bbox=[1, 2]" in text
    assert "2 files cannot be read: out/unreadable.txt lists them" in text
    assert Path("out/unreadable.txt").read_text().split() == [
        f"{tmp_path}/images/a.png",
        f"{tmp_path}/images/b.png",
    ]
    assert "train: no pictures, because of the faults below" in text
    assert text.splitlines()[-1] == "2 faults, 0 warnings"


def test_warnings_fail_only_if_asked(check, tmp_path):
    config = write_coco(tmp_path)
    change_coco(tmp_path, lambda coco: coco["annotations"].pop(1))
    status, text = check(config, "--samples", "0")
    assert status == 0 and "warning: " in text and "pictures" not in text
    assert check(config, "--samples", "0", "--strict")[0] == 1


def test_overrides(check, tmp_path):
    config = write_coco(tmp_path)
    options = ["--samples", "1", "--splits", "train", "--cfg-options", "model.head.num_classes=5"]
    status, text = check(config, *options)
    assert status == 1 and "fault: model.head.num_classes=5 but the data set has 2" in text
