"""The profile of whole training steps, from a config to its files."""

import itertools
import json

import pytest
import torch
from mmengine.config import Config

from swin_mm.benchmark import profile, profile_report, training
from swin_mm.benchmark.profile import StepProfile, profile_training
from swin_mm.benchmark.profile_trace import GpuActivity, read_trace
from swin_mm.cli import benchmark
from swin_mm.cli.config import load_config
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError
from swin_mm.datasets.shapes import write_shapes

NARROW = {
    "model.backbone.embed_dims": 8,
    "model.backbone.depths": (1, 1, 1, 1),
    "model.backbone.num_heads": (1, 1, 2, 2),
}
HEADS = {
    "mask_rcnn_swin_mini_shapes": ["neck", "rpn_head", "roi_head"],
    "upernet_swin_mini_shapes": ["decode_head", "auxiliary_head"],
}


def small_config(name: str) -> Config:
    cfg = load_config(name, NARROW)
    in_channels = [8, 16, 32, 64]
    if "neck" in cfg.model:
        cfg.model.neck.in_channels = in_channels
    else:
        cfg.model.decode_head.in_channels = in_channels
        cfg.model.auxiliary_head.in_channels = in_channels[cfg.model.auxiliary_head.in_index]
    return cfg


@pytest.mark.parametrize("name", HEADS)
def test_parts_sum_up_to_the_step(name, tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(profile, "TRACED_STEPS", 1)
    cfg = small_config(name)
    batches = training.random_batches(cfg, 2, (64, 96))
    timeline = tmp_path / "timeline.json.gz"
    found = profile_training(cfg, batches, torch.device("cpu"), 2, timeline)
    ours = ["data", "transfer", "preprocess", "backbone", *HEADS[name]]
    assert list(found.parts) == [*ours, "other", "backward", "optimizer"]
    assert sum(found.parts.values()) == pytest.approx(found.seconds, rel=0.05)
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.images == 2 and found.steps == 2 and found.gpu is None
    assert found.waiting == found.parts["data"]
    measures = found.measures()
    assert measures["gpu idle"] is measures["waits"] is measures["launches"] is None
    assert measures["backward"] == found.parts["backward"] / sum(found.parts.values())
    marked = {event["name"] for event in read_trace(timeline)}
    assert {*found.parts, "training step", "end of the steps"} <= marked


def test_steps_are_counted_and_change_weights():
    cfg = small_config("upernet_swin_mini_shapes")
    model, wrapper = training.build_training(cfg, torch.device("cpu"))
    before = model.decode_head.conv_seg.weight.detach().clone()
    seen = []
    endless = training.random_batches(cfg, 3, (64, 64))
    batches = (seen.append(len(batch["inputs"])) or batch for batch in endless)
    steps = profile.Steps(model, wrapper, batches)
    clock = profile.PartClock(clock=itertools.count().__next__, end=lambda: seen.append("end"))
    steps.run(2, clock)
    assert seen == [3, 3, "end"] and steps.images == 6
    assert not torch.equal(model.decode_head.conv_seg.weight, before)


GPU = StepProfile(
    seconds=0.1,
    parts={"data": 0.001, "backbone": 0.05, "backward": 0.149},
    waiting=0.02,
    images=8.0,
    steps=5,
    gpu=GpuActivity(busy=0.6, launches=5000.0, waits=200.0),
)


def test_report_of_a_gpu(tmp_path):
    measures = GPU.measures()
    # The wait for data is that of steps as training takes them; the parts were waited for.
    assert measures["data"] == pytest.approx(0.2)
    assert measures["backbone"] == pytest.approx(0.25)
    assert (measures["gpu idle"], measures["waits"]) == (pytest.approx(0.4), 200)
    lines = "\n".join(profile_report.draw_facts(GPU))
    for text in ("step: 100 ms, 80.0 images/s", "data 20.0 ms", "60% of the time", "5000 a step"):
        assert text in lines
    profile_report.write_json(tmp_path / "p.json", GPU, ["do it"], {"device": "X"}, "c", "d")
    content = json.loads((tmp_path / "p.json").read_text())
    assert content["gpu"] == {"busy": 0.6, "launches": 5000.0, "waits": 200.0}
    assert content["parts_ms"]["backbone"] == pytest.approx(50)
    assert (content["images_per_second"], content["advice"]) == (pytest.approx(80), ["do it"])


def test_command_profiles_the_data_of_a_config(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profile, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(profile, "TRACED_STEPS", 1)
    data = write_shapes(tmp_path / "shapes", "tiny")
    cfg = small_config("mask_rcnn_swin_mini_shapes")
    cfg.train_dataloader.dataset.data_root = f"{data}/"
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=2)
    cfg.dump(tmp_path / "small.py")
    argv = ["--config", "small.py", "--profile", "--rounds", "1", "--out", "found"]
    assert run_command("benchmark", [*argv, "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "small, training step, 2 images of its own data\n" in text
    assert "GPU, kernel launches: not measured on a CPU\n" in text
    assert "takes the most time" in text and "rpn_head" in text
    content = json.loads((tmp_path / "found/profile.json").read_text())
    assert content["gpu"] == "not measured on a CPU"
    assert content["command"].startswith("swin-mm benchmark --config small.py --profile")
    assert (tmp_path / "found/profile.png").stat().st_size > 0
    assert (tmp_path / "found/timeline.json.gz").exists()


def test_missing_data_are_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    cfg = small_config("mask_rcnn_swin_mini_shapes")
    cfg.train_dataloader.dataset.update(type="mmdet.CocoDataset", data_root=str(tmp_path))
    with pytest.raises(ConfigError, match="are not there .*instances_train.json.*--size HxW"):
        next(training.loaded_batches(cfg))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--profile is of the training step of a config: give --config"),
        (["--config", "a", "--arch", "tiny"], "the config says what the model is"),
        (["--config", "a", "--mode", "inference"], "is of a training step"),
        (["--config", "a", "--peers", "mmdet"], "--profile looks at one model"),
        (["--config", "a", "--run", "compile"], "--profile looks at one model"),
        (["--config", "a", "--sweep", "batch"], "--profile looks at one model"),
        (["--config", "a", "--dtype", "bf16"], "trains in the precision of the config"),
        (["--config", "a", "--size", "8x8", "9x9"], "--profile is of one size"),
        (["--config", "a", "--batch", "2"], "--batch is for random images"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_contradictions(options, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.main(["--profile", *options])
