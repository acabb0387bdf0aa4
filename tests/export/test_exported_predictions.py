"""An exported file predicts from Python and from the command line as its model does."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_models import build, two_stage

import swin_mm
from swin_mm.cli import predict
from swin_mm.configs import ConfigError
from swin_mm.datasets.reader import UnreadableError
from swin_mm.export.plan import ExportError
from swin_mm.export.runtime import ExportedModel
from swin_mm.export.write import ExportResult

pytestmark = pytest.mark.slow  # exporting takes a quarter of a minute

PALETTE = [(220, 20, 60), (1, 2, 3), (0, 99, 250)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> ExportResult:
    """A Mask R-CNN as a file, in a folder with its config, its weights and a picture."""
    folder = tmp_path_factory.mktemp("exported")
    model = two_stage()
    data = dict(
        type="CocoDataset",
        metainfo=dict(classes=("a", "b", "c"), palette=PALETTE),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(140, 100), keep_ratio=True),
            dict(type="PackDetInputs"),
        ],
    )
    cfg = dict(default_scope="mmdet", model=model, test_dataloader=dict(dataset=data))
    Config(cfg).dump(folder / "tiny.py")
    torch.save({"state_dict": build(model).state_dict(), "meta": {}}, folder / "tiny.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (100, 140, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "a.png"), cv2.GaussianBlur(pixels, (9, 9), 0))
    return swin_mm.load(folder / "tiny.py", folder / "tiny.pth", "cpu").export(folder / "t.onnx")


@pytest.fixture
def folder(exported) -> Path:
    return Path(exported.path).parent


def test_detections_equal_the_models_at_three_sizes(exported):
    assert len({d.size[1:] for d in exported.differences}) == 3
    for difference in exported.differences:
        assert difference.compared >= 10 * difference.size[0]
        assert "share of mask pixels" in difference.values


def test_it_finds_what_the_model_finds(folder):
    expected = swin_mm.load(folder / "tiny.py", folder / "tiny.pth", "cpu")
    expected = expected.predict(folder / "a.png", score_thr=0.05)
    model = swin_mm.load(folder / "t.onnx")
    found = model.predict(folder / "a.png", score_thr=0.05)
    assert len(found) == len(expected) >= 5
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.names == expected.names
    assert np.array_equal(found.palette, PALETTE) and np.array_equal(expected.palette, PALETTE)
    assert (found.masks != expected.masks).mean() < 1e-3
    rgb = cv2.imread(str(folder / "a.png"))[..., ::-1]
    first, second = model.predict([rgb, np.dstack([rgb, rgb[..., 0]])], score_thr=0.05)
    assert np.array_equal(first.boxes, found.boxes) and np.array_equal(second.boxes, found.boxes)
    grey = rgb[..., 0]
    first, second = model.predict([grey, np.dstack([grey] * 3)], score_thr=0.05)
    assert len(first) and np.array_equal(first.boxes, second.boxes)
    with pytest.raises(UnreadableError, match="must be uint8"):
        model.predict(rgb / 255)


def test_a_part_at_one_size(folder, tmp_path):
    model = swin_mm.load(folder / "tiny.py", folder / "tiny.pth", "cpu")
    options = dict(part="neck", size=(64, 96), batch=1, image=folder / "a.png")
    result = model.export(tmp_path / "neck.onnx", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["neck.onnx"]
    assert ExportedModel(result.path).metadata == result.metadata
    assert (result.metadata["size"], result.metadata["classes"]) == ([64, 96], ["a", "b", "c"])
    assert [d.size for d in result.differences] == [(1, 64, 96)]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.pb", {}, "must end in one of"),
        ("a.onnx", dict(format="tflite"), "format must be one of"),
        ("a.onnx", dict(format="openvino"), "a file of openvino ends in .xml"),
        ("a.onnx", dict(size=(64, 8)), r"size must be \(H, W\) from 32"),
        ("a.onnx", dict(batch=0), "batch must be 1 or more"),
        ("a.onnx", dict(part="head"), "part must be one of"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(name, options, message, folder, tmp_path):
    model = swin_mm.load(folder / "tiny.py", folder / "tiny.pth", "cpu")
    with pytest.raises(ExportError, match=message):
        model.export(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_the_command_takes_it_in_place_of_config_and_weights(folder, tmp_path):
    options = ["--out", str(tmp_path), "--score-thr", "0.05"]
    assert predict.main([str(folder / "t.onnx"), str(folder / "a.png"), *options]) == 0
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["name"] for entry in content["categories"]] == ["a", "b", "c"]
    assert len(content["annotations"]) >= 5 and (tmp_path / "pictures" / "a.png").exists()


def test_what_it_cannot_do_is_refused(folder, tmp_path):
    model = swin_mm.load(folder / "t.onnx")
    with pytest.raises(ConfigError, match="need the model itself"):
        model.predict(folder / "a.png", tta=True)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UnreadableError, match=r"b\.png cannot be loaded"):
        model.predict(tmp_path / "b.png")
    with pytest.raises(ConfigError, match="no images: give CONFIG CHECKPOINT IMAGES"):
        predict.main([str(folder / "tiny.py"), str(folder / "tiny.pth")])
