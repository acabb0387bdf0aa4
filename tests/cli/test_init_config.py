"""The command that writes a config for one's own data."""

import pytest
from mmengine.config import Config
from own_data import NAMES, write_coco, write_maps

from swin_mm.cli.init_config import main
from swin_mm.cli.main import run_command


def test_from_one_file_to_the_next_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, images=10)
    main(["--coco", "train.json", "--preset", "small", "--out", "own.py"])
    output = capsys.readouterr().out
    assert "data:    8 training and 2 validation images, 3 classes, boxes and masks\n" in output
    assert "model:   Mask R-CNN on a small Swin, 100 epochs of 4 steps" in output
    assert "note:    2 images were split off for validation" in output
    written, _, following = output.partition("written: ")[2].partition("\n\nnext:\n")
    assert sorted(name.rpartition("/")[2] for name in written.split(", ")) == [
        "own.py",
        "own_train.json",
        "own_val.json",
    ]
    assert following == (
        "  swin-mm browse-dataset own.py\n"
        "  swin-mm train own.py\n"
        "  swin-mm test own.py work_dirs/own/epoch_100.pth --show-dir pictures\n"
        "  swin-mm predict own.py work_dirs/own/epoch_100.pth IMAGES\n"
    )


def test_a_changed_copy_lies_beside_a_config_in_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, images=3)
    classes = ((1, NAMES[2]), (2, NAMES[0]))
    write_coco(tmp_path, images=2, categories=classes, file="val.json", image_folder="val")
    main(["--coco", "train.json", "val.json", "--preset", "small", "--out", "own.py"])
    assert "own_val.json is a changed copy: its classes" in capsys.readouterr().out
    assert Config.fromfile("own.py").val_file == "own_val.json"


def test_label_maps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_maps(tmp_path, images=5)
    command = ["--masks", "lab", "--images", "img", "--classes", "a", "b", "c", "--preset", "small"]
    main(command)
    output = capsys.readouterr().out
    assert "data:    4 training and 1 validation images, 3 classes: a, b, c" in output
    assert "Values 0 to 2 of the label maps are the classes." in output
    assert "swin-mm test my_config.py work_dirs/my_config/iter_400.pth" in output


def test_the_preset_is_explained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_coco(tmp_path, images=4)
    main(["--coco", "train.json"])
    assert "preset:  small (no GPU is here; --preset full for one)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of the arguments FOLDER --coco --masks is required"),
        (["--coco", "a", "b", "c"], "--coco takes one or two, got 3"),
        (["--masks", "a"], "--masks needs --images"),
        (["data", "--coco", "a"], "not allowed with"),
        (["--coco", "a", "--classes", "x"], "--classes goes with masks"),
        (["--coco", "a", "--val-share", "1"], "--val-share must be between 0 and 1"),
        (["--coco", "a", "--batch-size", "0"], "--batch-size: must be a whole number above 0"),
    ],
    ids=[
        "nothing",
        "three files",
        "no images",
        "two kinds",
        "classes twice",
        "share",
        "batch",
    ],
)
def test_options_without_sense(capsys, options, message):
    with pytest.raises(SystemExit):
        main(options)
    assert message in capsys.readouterr().err


def test_errors_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_command("init-config", ["--coco", "none.json", "--preset", "small"]) == 1
    assert capsys.readouterr().err == (
        "swin-mm: error: --coco: there is no annotation file none.json\n"
    )
