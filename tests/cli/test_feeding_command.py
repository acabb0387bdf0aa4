"""`swin-mm benchmark --part data`: options, and runs from beginning to end."""

import json

import cv2
import pytest

from swin_mm.cli import benchmark, feeding
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feeding, "GROUPS", 2)
    monkeypatch.setattr(feeding, "TIMED_IMAGES", 2)
    return tmp_path


DATA = ["--part", "data", "--made-images", "4", "--rounds", "2", "--out", "found"]


def test_from_command_to_files(quick, capsys):
    argv = ["--config", "mask_rcnn_swin_t", *DATA, "--workers", "0", "1", "--peers", "mmdet"]
    assert run_command("benchmark", [*argv, "--step-ms", "1"]) == 0
    text = capsys.readouterr().out
    assert "mask_rcnn_swin_t, train loader, 2 images a batch, 4 JPEGs of 480x640" in text
    assert "swin_mm, 0 workers: data come 0.0" in text and "too slow" in text
    assert "written: found/data.json, found/data.png\n" in text
    content = json.loads((quick / "found/data.json").read_text())
    found = [(loader["library"], loader["workers"]) for loader in content["loaders"]]
    assert found == [("swin_mm", 0), ("mmdet", 0), ("swin_mm", 1), ("mmdet", 1)]
    for loader in content["loaders"]:
        assert loader["median_images_per_second"] > 0
        assert len(loader["samples_ms"]) == 4
        assert loader["data_to_step"] < 1 < loader["workers_needed"]
    steps = content["pipeline_cpu_ms"]
    assert list(steps) == ["swin_mm", "mmdet"]
    for seconds in steps.values():
        assert {"LoadImageFromFile", "LoadAnnotations", "PackDetInputs"} < seconds.keys()
    assert content["step_ms"] == 1 and len(content["advice"]) == 4
    assert (quick / "found/data.png").stat().st_size > 0
    assert len([*(quick / "data/shapes/photos/4_mmdet/train").iterdir()]) == 4


def test_segmentor_without_a_step(quick, capsys):
    cv2.setNumThreads(2)
    assert benchmark.main(["--config", "upernet_swin_t", *DATA, "--workers", "0"]) == 0
    assert "keeps up" not in capsys.readouterr().out
    content = json.loads((quick / "found/data.json").read_text())
    (loader,) = content["loaders"]
    assert cv2.getNumThreads() == 1  # as in training, so that workers do not compete
    assert loader["batch"] == 2 and 0 <= loader["padding_share"] < 0.8
    assert loader["data_to_step"] is None and content["advice"] == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--part", "data"], "give --config"),
        (["--workers", "2"], "are for --part data: add it"),
        (["--part", "data", "--config", "x", "--size", "64x64"], "leave --size"),
        (["--part", "data", "--config", "x", "--arch", "tiny"], "has no model"),
        (["--part", "data", "--config", "x", "--sweep", "side"], "leave --sweep"),
        (["--part", "data", "--config", "x", "--mode", "inference"], "of training"),
        (["--part", "data", "--config", "x", "--step-ms", "9", "--with-step"], "one of them"),
        (
            ["--part", "data", "--config", "mask_rcnn_swin_t", "--peers", "timm"],
            "is mmdet, got",
        ),
        (["--part", "data", "--config", "mask_rcnn_swin_t"], "--made-images N makes some"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_refused(quick, argv, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.main(argv)


def test_what_is_written_for_the_workers():
    assert benchmark.parse_args(["--workers", "0", "2"]).workers == [0, 2]
    with pytest.raises(SystemExit):
        benchmark.parse_args(["--workers", "-1"])
