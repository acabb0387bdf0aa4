"""The small trainings of families: both sides get one model, and the table what was measured."""

import fcntl
import json
import runpy
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    return Namespace(**runpy.run_path(str(ROOT / "tools" / "train_families.py")))


def kinds(node):
    """All types that a config names."""
    if isinstance(node, dict):
        own = [node["type"]] if "type" in node else []
        return own + kinds(list(node.values()))
    return sum(map(kinds, node), []) if isinstance(node, list | tuple) else []


@pytest.mark.parametrize("name", ["Mask R-CNN", "UPerNet"])
def test_both_sides_have_the_same_settings_and_weights(tool, name, tmp_path):
    """The stock side has none of our classes; ours takes its weights, all of them."""
    ours, stock = (tool.build_config(name, 3, side, 8) for side in tool.SIDES)
    for key in set(ours) | set(stock):
        assert key == "model" or ours[key] == stock[key]
    own = [kind for kind in kinds(ours.model) if str(kind).startswith("swin_mm.")]
    assert own and not [kind for kind in kinds(stock.model) if str(kind).startswith("swin_mm.")]
    assert ours.train_cfg.max_iters == 8 and ours.randomness.seed == 3
    tool.save_initial_weights(stock, 3, tmp_path / "initial.pth")
    state = torch.load(tmp_path / "initial.pth")["state_dict"]
    with DefaultScope.overwrite_default_scope(ours.default_scope):
        model = MODELS.build(ours.model)
    result = model.load_state_dict(state, strict=False)
    assert not result.missing_keys and not result.unexpected_keys


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Mask2Former, instances", [1.0] * 6 + [0.1]),
        ("Mask2Former, label maps", [1.0] * 7 + [0.1]),
        ("Mask2Former, panoptic", [1.0] * 7 + [0.1]),
    ],
)
def test_losses_have_a_weight_for_each_class(tool, name, weights):
    parts = tool.walk(tool.build_config(name, 0, "ours", 8).model)
    found = [part["class_weight"] for part in parts if isinstance(part.get("class_weight"), list)]
    assert found == [weights]


def test_panoptic_segments_are_read_and_scored(tool):
    cfg = tool.build_config("Mask2Former, panoptic", 0, "ours", 8)
    head = cfg.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (6, 1)
    assert cfg.val_evaluator.type == cfg.test_evaluator.type == "CocoPanopticMetric"
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        kinds = [step.type for step in loader.dataset.pipeline]
        assert "LoadPanopticAnnotations" in kinds and "LoadAnnotations" not in kinds


def test_seeds_are_outermost_and_failures_do_not_stop_the_rest(tool, monkeypatch, tmp_path):
    seen = []

    def train(name, seed, side, args):
        seen.append((name, seed, side))
        if side == "stock":
            raise subprocess.CalledProcessError(1, "train")

    names = ["RepPoints", "RepPoints V2"]
    command = ["x", "--families", *names, "--seeds", "0", "1", "--work-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setitem(tool.main.__globals__, "train", train)
    with pytest.raises(SystemExit, match="RepPoints, seed 0, stock; RepPoints, seed 1, stock"):
        tool.main()
    assert seen == [
        (name, seed, side)
        for seed in (0, 1)
        for name, side in (("RepPoints", "ours"), ("RepPoints", "stock"), ("RepPoints V2", "ours"))
    ]


def test_a_run_that_another_process_trains_is_left_to_it(tool, tmp_path, monkeypatch, capsys):
    args = Namespace(work_dir=tmp_path, results=tmp_path, steps=8)
    folder = tool.run_folder("RetinaNet", 0, "ours", args)
    folder.mkdir(parents=True)
    holder = (folder / ".lock").open("w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    tool.train("RetinaNet", 0, "ours", args)
    assert "by another process" in capsys.readouterr().out and not (folder / "config.py").exists()


def test_weights_are_deleted_once_nothing_needs_them(tool, tmp_path):
    args = Namespace(work_dir=tmp_path, results=tmp_path, steps=8)
    for side in tool.SIDES:
        folder = tool.run_folder("ATSS", 0, side, args)
        folder.mkdir(parents=True)
        (folder / "iter_8.pth").touch()
    initial = folder.parent / "initial.pth"
    initial.touch()
    for side in tool.SIDES:
        assert initial.exists()
        tool.result_file("ATSS", 0, side, args).touch()
        tool.remove_weights("ATSS", 0, side, args)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("name", ["Hybrid Task Cascade", "RepPoints", "DINO", "K-Net"])
def test_configs_of_other_families_are_made(tool, name):
    cfg = tool.build_config(name, 0, "stock", 8)
    assert cfg.model.backbone.type in ("mmdet.SwinTransformer", "mmseg.SwinTransformer")
    assert ("segm" in cfg.val_evaluator.get("metric", [])) == (name == "Hybrid Task Cascade")
    assert ("seg" in cfg.train_dataloader.dataset.data_prefix) == (name == "Hybrid Task Cascade")


def test_the_table_has_what_both_sides_measured(tool, tmp_path, monkeypatch, capsys):
    """Two seeds of one family, one side of another; the text around the table stays."""
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{tool.BEGIN}\nold\n{tool.END}\n\nafter\n")
    write = tool.write_table
    monkeypatch.setitem(write.__globals__, "README", page)
    args = Namespace(results=tmp_path, steps=8, seeds=[0, 1, 2])

    def keep(name, seed, side, scores):
        result = {"commit": "abc", "device": "a CPU", "scores": scores}
        tool.result_file(name, seed, side, args).write_text(json.dumps(result))

    for seed, ours in ((0, 0.30), (1, 0.40)):
        keep("RetinaNet", seed, "ours", {"coco/bbox_mAP": ours})
        keep("RetinaNet", seed, "stock", {"coco/bbox_mAP": 0.33})
    keep("UPerNet", 0, "ours", {"mIoU": 7.0})
    keep("RepPoints V2", 0, "ours", {"coco/bbox_mAP": 0.33})
    write(args)
    text = page.read_text()
    assert text.startswith(f"before\n\n{tool.BEGIN}\n") and text.endswith(f"{tool.END}\n\nafter\n")
    row = "| RetinaNet | [`retinanet_swin_t`](retinanet_swin_t.py) | box AP "
    assert f"{row}| 35.0 (7.1) | 33.0 (0.0) | 0, 1 |\n" in text
    assert "| box AP | 33.0 | - | 0 |\n" in text  # RepPoints V2, which mmdet has not
    assert "UPerNet" not in text and "8 steps; a CPU; at abc:" in text
    assert row in capsys.readouterr().out


def test_the_last_scores_of_a_run_are_read(tool, tmp_path):
    for name, value in (("20260101_000000", 0.1), ("20260102_000000", 0.2)):
        log = tmp_path / name / "vis_data" / "scalars.json"
        log.parent.mkdir(parents=True)
        lines = [{"coco/bbox_mAP": value, "coco/segm_mAP": 0.05, "step": 4}, {"loss": 1.0}]
        log.write_text("\n".join(map(json.dumps, lines)))
    evaluator = {"type": "swin_mm.CocoMetric", "metric": ["bbox", "segm"]}
    found = tool.read_scores(tmp_path, evaluator)
    assert found == {"coco/bbox_mAP": 0.2, "coco/segm_mAP": 0.05}
    nothing = tool.read_scores(tmp_path / "empty", evaluator)
    assert nothing == {"coco/bbox_mAP": 0.0, "coco/segm_mAP": 0.0}


def test_unknown_families_are_refused(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_families.py", "--families", "YOLO"])
    with pytest.raises(SystemExit, match="2"):
        tool.parse_args()
    assert "invalid choice: 'YOLO'" in capsys.readouterr().err
