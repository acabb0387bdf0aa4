"""What training and testing share: the config as they see it, processes, checks of checkpoints."""

import argparse

import pytest
import torch
from mmengine.config import Config
from toy_task import ToyModel

from swin_mm.checkpoint import CheckpointError
from swin_mm.cli.launch import (
    add_launch_options,
    check_checkpoint,
    check_pretrained,
    find_scope,
    prepare_config,
    start_processes,
    use_own_types,
)
from swin_mm.configs import ConfigError


def prepare(*argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    add_launch_options(parser)
    return prepare_config(parser.parse_args(argv))


@pytest.mark.parametrize("wrapper", ["OptimWrapper", "AmpOptimWrapper"])
def test_stock_parts_become_ours_and_ours_are_added(toy, wrapper):
    hooks = "default_hooks = dict(logger=dict(type='LoggerHook', interval=7))\n"
    cfg = prepare(toy(hooks + f"optim_wrapper['type'] = '{wrapper}'\n"))
    used = use_own_types(cfg)
    assert {wrapper, "CheckpointHook", "CurvesHook"} < set(used)
    assert cfg.optim_wrapper.type == f"swin_mm.{wrapper}"
    assert {name: hook.type for name, hook in cfg.default_hooks.items()} == {
        "logger": "LoggerHook",
        "checkpoint": "swin_mm.CheckpointHook",
        "start_table": "swin_mm.StartTableHook",
        "progress": "swin_mm.ProgressHook",
        "curves": "swin_mm.CurvesHook",
        "non_finite": "swin_mm.NonFiniteLossHook",
        "prediction_sheet": "swin_mm.PredictionSheetHook",
        "runtime_info": "swin_mm.RuntimeInfoHook",
        "resumed_schedules": "swin_mm.ResumedSchedulesHook",
    }
    assert cfg.default_hooks.logger.interval == 7


@pytest.mark.parametrize(
    ("train_cfg", "kind"),
    [("by_epoch=True", "EpochBasedTrainLoop"), ("type='IterBasedTrainLoop'", "IterBasedTrainLoop")],
)
def test_training_loops_become_ours(toy, train_cfg, kind):
    cfg = prepare(toy(f"train_cfg = dict({train_cfg})\n"))
    assert kind in use_own_types(cfg)
    assert cfg.train_cfg.type == f"swin_mm.{kind}" and "by_epoch" not in cfg.train_cfg


def test_own_hook_of_a_user_stays(toy):
    cfg = prepare(toy("default_hooks = dict(checkpoint=dict(type='MyHook', interval=3))\n"))
    assert "CheckpointHook" not in use_own_types(cfg)
    assert cfg.default_hooks.checkpoint == dict(type="MyHook", interval=3)


@pytest.mark.parametrize("gpu", [False, True], ids=["no GPU", "GPU"])
def test_memory_is_pinned_for_a_gpu(toy, monkeypatch, gpu):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    cfg = prepare(toy("val_dataloader = dict(train_dataloader, pin_memory=False)\nval_cfg = {}\n"))
    assert cfg.train_dataloader.get("pin_memory", False) == gpu
    assert cfg.val_dataloader.pin_memory is False


@pytest.mark.parametrize(
    ("extra", "options", "work_dir"),
    [
        ("", [], "work_dirs/toy"),
        ("work_dir = 'a'\n", [], "a"),
        ("work_dir = 'a'\n", ["--work-dir", "b"], "b"),
    ],
    ids=["default", "config", "option"],
)
def test_work_folder(toy, extra, options, work_dir):
    assert prepare(toy(extra), *options).work_dir == work_dir


def test_config_must_say_what_it_is_for(toy):
    with pytest.raises(ConfigError, match="no default_scope: set it to 'mmdet' .* or to 'mmseg'"):
        prepare(toy("default_scope = None\n"))


def test_pure_python_config_says_it_by_its_model():
    assert find_scope(Config(dict(default_scope=None, model=dict(type=ToyModel)))) == "toy_task"


def test_launcher_without_processes(toy, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="use tools/dist_train.sh"):
        start_processes(prepare(toy(), "--launcher", "pytorch"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_slurm_needs_gpus(toy):
    with pytest.raises(ConfigError, match="--launcher slurm needs GPUs"):
        start_processes(prepare(toy(), "--launcher", "slurm"))


@pytest.mark.parametrize("path", ["https://host/a.pth", "torchvision://resnet50"])
def test_addresses_are_not_looked_at(path):
    check_checkpoint(path)


def test_names_of_published_weights_are_addresses():
    found = check_checkpoint("upernet_swin_t")
    assert found.startswith("https://") and "upernet_swin_tiny" in found
    with pytest.raises(CheckpointError, match="no file and no published .*nearest: upernet_swin_t"):
        check_checkpoint("upernet_swin_tt")


def test_missing_and_truncated_checkpoints(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match="a.pth: there is no such file"):
        check_checkpoint(str(path))
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, path)
    check_checkpoint(str(path))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="a.pth: it is truncated at 2000 bytes"):
        check_checkpoint(str(path))


def test_missing_pretrained_weights_anywhere_in_the_model(tmp_path):
    good, absent = tmp_path / "good.pth", tmp_path / "absent.pth"
    torch.save({}, good)
    part = dict(type="B", init_cfg=dict(type="Pretrained", checkpoint=str(good)))
    model = dict(backbone=part, heads=[dict(type="H", init_cfg=[dict(type="Xavier")])])
    check_pretrained(Config(dict(model=model)))
    model["heads"][0]["init_cfg"].append(dict(type="Pretrained", checkpoint=str(absent)))
    with pytest.raises(CheckpointError, match="absent.pth: there is no such file"):
        check_pretrained(Config(dict(model=model)))
