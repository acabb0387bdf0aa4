"""Testing from the command line: metrics, kept predictions, pictures, and what is refused."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from PIL import Image
from tiny_recipe import write_tiny_recipe

from swin_mm.checkpoint import CheckpointError
from swin_mm.cli import test as command
from swin_mm.cli import train
from swin_mm.configs import ConfigError


@pytest.fixture
def untrained(tmp_path, monkeypatch, tiny_shapes):
    """Config and checkpoint of a small model that predicts at random, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(scope):
        cfg = write_tiny_recipe(scope, tiny_shapes, Path("small.py"))
        model = MODELS.build(cfg.model)
        torch.save({"state_dict": model.state_dict(), "meta": {}}, "model.pth")
        return ["small.py", "model.pth", "--work-dir", "out"]

    return make


def read_metrics(folder="out"):
    return json.loads(Path(folder, command.METRICS_FILE).read_text())


def test_detector(untrained, tiny_shapes, capsys):
    command.main([*untrained("mmdet"), "--out", "found.pkl", "--show-dir", "pictures"])
    content = read_metrics()
    assert content["config"] == "small.py" and content["checkpoint"] == "model.pth"
    assert {"coco/bbox_mAP", "coco/segm_mAP_50"} < content["metrics"].keys()
    assert 0 <= content["metrics"]["coco/bbox_mAP_50"] < 0.2

    found = pickle.loads(Path("found.pkl").read_bytes())
    assert len(found) == 6
    assert {"bboxes", "labels", "masks", "scores"} <= found[0]["pred_instances"].keys()

    images = sorted(Path(tiny_shapes, "val").iterdir())
    (pictures,) = Path("out").glob("*/pictures")
    assert [path.name for path in sorted(pictures.iterdir())] == [path.name for path in images]
    # Ground truth and prediction side by side.
    (width, height), drawn = Image.open(images[0]).size, Image.open(pictures / images[0].name)
    assert drawn.size == (2 * width, height)

    output = capsys.readouterr().out
    assert "│ coco/bbox_mAP_50 │" in output
    for line in ("metrics: ", "pictures: ", "predictions: found.pkl", "checkpoint: model.pth"):
        assert f"\n{line}" in output
    assert re.search("│ model +│ MaskRCNN on SwinTransformer, .* M parameters", output)
    assert re.search("│ test data +│ 6 images, ", output)


@pytest.mark.slow
def test_segmentor_keeps_label_maps(untrained, tiny_shapes):
    arguments = untrained("mmseg")
    command.main([*arguments, "--out", "maps.pkl", "--show-dir", "pictures"])
    assert set(read_metrics()["metrics"]) == {"aAcc", "mIoU", "mAcc"}
    kept = pickle.loads(Path("maps.pkl").read_bytes())
    images = sorted(Path(tiny_shapes, "val").iterdir())
    assert [Path(entry["img_path"]) for entry in kept] == images
    for entry in kept:
        assert entry["labels"].shape == Image.open(entry["img_path"]).size[::-1]
        assert entry["labels"].dtype == np.int16
    (pictures,) = Path("out").glob("*/pictures")
    drawn = Image.open(pictures / f"{images[0].stem}.png")
    width, height = Image.open(images[0]).size
    assert drawn.size == (2 * width, height)

    command.main([*arguments, "--out", "maps"])
    for entry in kept:
        path = Path("maps", f"{Path(entry['img_path']).stem}.png")
        assert np.array_equal(np.asarray(Image.open(path)), entry["labels"])


@pytest.mark.slow
def test_segmentor_averages_views(untrained):
    views = [[dict(type="Resize", scale=(96, 96), keep_ratio=True)]]
    flips = [dict(type="RandomFlip", prob=p, direction="horizontal") for p in (0.0, 1.0)]
    views += [flips, [dict(type="LoadAnnotations")], [dict(type="PackSegInputs")]]
    pipeline = [dict(type="LoadImageFromFile"), dict(type="TestTimeAug", transforms=views)]
    arguments = untrained("mmseg")
    Path("small.py").write_text(f"{Path('small.py').read_text()}\ntta_pipeline = {pipeline}\n")
    command.main([*arguments, "--tta"])
    assert "mIoU" in read_metrics()["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--tta"],
        ["--sliced", "--slice-height", "72", "--slice-width", "80"],
    ],
    ids=["views", "slices"],
)
def test_detector_with_masks(untrained, tiny_shapes, flags):
    """Boxes and masks are merged, scored, kept and drawn."""
    command.main([*untrained("mmdet"), "--out", "found.pkl", "--show-dir", "drawn", *flags])
    assert {"coco/bbox_mAP", "coco/segm_mAP_50"} < read_metrics()["metrics"].keys()
    found = pickle.loads(Path("found.pkl").read_bytes())
    images = sorted(Path(tiny_shapes, "val").iterdir())
    for entry, path in zip(found, images, strict=True):
        masks = entry["pred_instances"]["masks"]
        assert len(masks) == len(entry["pred_instances"]["scores"]) > 0
        assert {tuple(mask["size"]) for mask in masks} == {Image.open(path).size[::-1]}
    (pictures,) = Path("out").glob("*/drawn")
    assert len(list(pictures.iterdir())) == 6
    assert Path("out", "predictions.png").exists()


def test_slice_sizes_need_slices(untrained):
    arguments = untrained("mmdet")
    with pytest.raises(ConfigError, match="--slice-height and --slice-width are for --sliced"):
        command.main([*arguments, "--slice-width", "64"])
    with pytest.raises(ConfigError, match="--tta and --sliced do not go together"):
        command.main([*arguments, "--tta", "--sliced"])


def test_predictions_of_a_detector_go_to_a_pickle(untrained):
    with pytest.raises(ConfigError, match="--out must end in .pkl, got folder"):
        command.main([*untrained("mmdet"), "--out", "folder"])


@pytest.mark.slow
def test_checkpoint_of_another_model_is_refused(untrained):
    untrained("mmseg")
    Path("model.pth").rename("segmentor.pth")
    arguments = untrained("mmdet")
    with pytest.raises(CheckpointError, match=r"segmentor.pth lacks \d+ of the \d+ weights"):
        command.main([arguments[0], "segmentor.pth", "--work-dir", "out"])
    state = torch.load("model.pth")
    weight = state["state_dict"].pop("roi_head.bbox_head.fc_cls.weight")
    state["state_dict"]["roi_head.bbox_head.fc_cls.weight"] = torch.zeros(81, weight.shape[1])
    torch.save(state, "model.pth")
    expected = r"model.pth is of another model: roi_head.bbox_head.fc_cls.weight is 81x\d+ there"
    with pytest.raises(CheckpointError, match=expected):
        command.main(arguments)


def test_missing_checkpoint_and_missing_data(toy):
    with pytest.raises(CheckpointError, match="no.pth: there is no such file"):
        command.main([toy(), "no.pth"])
    extra = "test_dataloader = None\ntest_cfg = None\ntest_evaluator = None\n"
    with pytest.raises(ConfigError, match="has no test_dataloader"):
        command.main([toy(extra), "no.pth"])


def test_half_a_loop_is_refused(toy):
    with pytest.raises(ConfigError, match="has no test_evaluator: test_dataloader, test_cfg, "):
        command.main([toy(), "any.pth", "--cfg-options", "test_evaluator=None"])


def test_metrics_are_those_of_the_last_validation(toy):
    train.main([toy(), "--cfg-options", "train_cfg.max_epochs=2"])
    command.main(["toy.py", "work_dirs/toy/epoch_2.pth"])
    logs = Path("work_dirs/toy").glob("*/vis_data/scalars.json")
    validation = json.loads(next(logs).read_text().splitlines()[-1])
    metrics = read_metrics("work_dirs/toy")["metrics"]
    assert metrics == {name: validation[name] for name in ("toy/error", "toy/accuracy")}
