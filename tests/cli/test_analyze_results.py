"""Analysis from the command line, of kept predictions and of a checkpoint."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS
from PIL import Image
from tiny_recipe import write_tiny_recipe

from swin_mm.analysis.predictions import PredictionError
from swin_mm.cli import analyze_results as command
from swin_mm.configs import ConfigError


@pytest.fixture
def config(tmp_path, monkeypatch, tiny_shapes):
    monkeypatch.chdir(tmp_path)
    return lambda scope: write_tiny_recipe(scope, tiny_shapes, Path("small.py"))


def truth_as_predictions(cfg):
    """The ground truth of a detector's data with a score of 0.9, but for one object of the first
    image, which is taken for another class, and one of the second, which is missed."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    count = len(dataset.metainfo["classes"])
    entries = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        instances = info["instances"][1 if index == 1 else 0 :]
        labels = [instance["bbox_label"] for instance in instances]
        if index == 0:
            labels[0] = (labels[0] + 1) % count
        found = dict(
            bboxes=torch.tensor([i["bbox"] for i in instances]).float().reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.full((len(labels),), 0.9),
        )
        entries.append(dict(img_id=info["img_id"], pred_instances=found))
    return entries


def test_detector_as_a_page_and_as_a_folder(config, tiny_shapes, capsys):
    entries = truth_as_predictions(config("mmdet"))
    Path("found.pkl").write_bytes(pickle.dumps(entries))
    command.main(["small.py", "found.pkl", "--out", "deep/page.html"])
    page = Path("deep/page.html").read_text()
    assert page.count("data:image/png;base64,") == 3 + 2
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing else is needed
    assert "<td>config</td><td>small.py</td>" in page
    assert "<td>predictions</td><td>found.pkl</td>" in page
    assert f"<td>{tiny_shapes}/annotations/instances_val.json</td>" in page
    for name in ("000000.png", "000001.png"):
        assert f"<figcaption>{name}</figcaption>" in page
    for title in (
        "Average precision of boxes",
        "Precision by recall of boxes",
        "What is taken for what",
        "Worst images",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "│ images " in capsys.readouterr().out

    command.main(["small.py", "found.pkl", "--out", "folder", "--worst", "3"])
    pictures = ("box_precision", "box_precision_by_recall", "confusions")
    names = {f"{name}.png" for name in (*pictures, "worst_1", "worst_2")}
    assert {path.name for path in Path("folder").iterdir()} == names | {"analysis.json"}
    numbers = json.loads(Path("folder/analysis.json").read_text())
    right = sum(len(e["pred_instances"]["labels"]) for e in entries) - 1
    assert numbers["objects"] == right + 2 and numbers["detections"] == right + 1
    assert {row["predicted"] for row in numbers["confusions"]} >= {"background"}
    assert len(numbers["confusions"]) == 2
    # One image with an object missed, one with an object of the wrong class; the others are right.
    assert len(numbers["worst"]) == 2
    assert Image.open("folder/worst_1.png").size[0] > 100


@pytest.mark.slow
def test_segmentor_of_a_checkpoint(config, capsys):
    cfg = config("mmseg")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {}}, "model.pth")
    command.main(["small.py", "model.pth", "--out", "folder", "--work-dir", "out"])
    numbers = json.loads(Path("folder/analysis.json").read_text())
    metrics = json.loads(Path("out/metrics.json").read_text())["metrics"]
    assert 100 * numbers["mIoU"] == pytest.approx(metrics["mIoU"], abs=0.006)
    assert 100 * numbers["pixels right"] == pytest.approx(metrics["aAcc"], abs=0.006)
    assert {path.stem for path in Path("folder").glob("*.png")} == {
        "overlap",
        "confusions",
        *(f"worst_{number}" for number in range(1, 7)),
    }
    assert numbers["checkpoint"] == "model.pth" and numbers["config"] == "small.py"
    # What the test has kept serves the next analysis, by default in the work folder.
    command.main(["small.py", "out/predictions.pkl", "--work-dir", "out"])
    assert "<h2>Intersection over union</h2>" in Path("out/analysis.html").read_text()
    assert "│ mIoU " in capsys.readouterr().out


def test_predictions_of_another_task(config):
    config("mmdet")
    Path("maps.pkl").write_bytes(pickle.dumps([dict(img_path="a", labels=np.zeros((2, 2)))]))
    with pytest.raises(PredictionError, match="not those of a detector"):
        command.main(["small.py", "maps.pkl"])


def test_nothing_found(config):
    entries = truth_as_predictions(config("mmdet"))
    for entry in entries:
        entry["pred_instances"] = {k: v[:0] for k, v in entry["pred_instances"].items()}
    Path("found.pkl").write_bytes(pickle.dumps(entries))
    with pytest.raises(PredictionError, match="not one detection"):
        command.main(["small.py", "found.pkl"])


def test_config_without_test_data(config):
    config("mmdet")
    with Path("small.py").open("a") as file:
        file.write("test_dataloader = None\ntest_cfg = None\ntest_evaluator = None\n")
    with pytest.raises(ConfigError, match="has no test_dataloader"):
        command.main(["small.py", "found.pkl"])


@pytest.mark.parametrize("option", [["--min-score", "3"], ["--iou", "a"]], ids=str)
def test_share_that_is_none(option, capsys):
    with pytest.raises(SystemExit):
        command.main(["small.py", "found.pkl", *option])
    assert f"argument {option[0]}" in capsys.readouterr().err
