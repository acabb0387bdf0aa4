"""What the options of training do, on a task of milliseconds."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from swin_mm.cli import train_options
from swin_mm.cli.train import main, parse_args
from swin_mm.cli.train_options import apply_train_options, scale_learning_rate
from swin_mm.configs import ConfigError

ONE_EPOCH = ["--cfg-options", "train_cfg.max_epochs=1"]


def load(name="epoch_1"):
    return torch.load(f"work_dirs/toy/{name}.pth", weights_only=False)


def apply(config, *options):
    cfg = Config.fromfile(config)
    apply_train_options(cfg, parse_args([config, *options]))
    return cfg


@pytest.mark.parametrize(
    ("options", "dtype"),
    [(["--amp"], None), (["--amp", "float16"], "float16"), (["--amp", "bfloat16"], "bfloat16")],
    ids=["default", "float16", "bfloat16"],
)
def test_amp_takes_the_precision_that_the_machine_has(toy, options, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # of a CPU without AMX
    cfg = apply(toy(), *options)
    assert cfg.optim_wrapper.type == "swin_mm.AmpOptimWrapper"
    assert cfg.optim_wrapper.get("dtype") == dtype


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_cpu_with_amx_takes_bfloat16(toy, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert apply(toy(), "--amp").optim_wrapper.dtype == "bfloat16"
    assert "this CPU multiplies bfloat16 (AMX)" in capsys.readouterr().out
    assert apply(toy(), "--amp", "float16").optim_wrapper.dtype == "float16"


def test_precision_of_a_recipe_stays_unless_another_is_given(toy):
    recipe = toy("optim_wrapper.update(type='swin_mm.AmpOptimWrapper', dtype='bfloat16')\n")
    assert apply(recipe, "--amp").optim_wrapper.dtype == "bfloat16"
    assert apply(recipe, "--amp", "float16").optim_wrapper.dtype == "float16"


def test_sharding_needs_several_processes(toy):
    with pytest.raises(ConfigError, match="this run has one: start it with tools/dist_train.sh"):
        apply(toy(), "--shard")


@pytest.mark.parametrize(
    ("lines", "wrapper"),
    [
        ("", dict(find_unused_parameters=False)),
        ("find_unused_parameters = True", dict(find_unused_parameters=True)),
        ("model_wrapper_cfg = dict(type='swin_mm.ShardedModel', group_size=8)", dict(group_size=8)),
    ],
    ids=["plain", "unused", "own"],
)
def test_sharding_keeps_what_the_config_says_of_it(toy, lines, wrapper):
    config = toy(f"launcher = 'pytorch'\n{lines}\n")
    assert apply(config, "--shard").model_wrapper_cfg == dict(
        type="swin_mm.ShardedModel", **wrapper
    )


def test_sharding_refuses_another_wrapper(toy):
    config = toy("launcher = 'pytorch'\nmodel_wrapper_cfg = dict(type='Mine')\n")
    with pytest.raises(ConfigError, match="model_wrapper_cfg of the config is of type Mine"):
        apply(config, "--shard")


def test_unknown_precision_is_refused(toy, capsys):
    with pytest.raises(SystemExit):
        apply(toy(), "--amp", "int8")
    assert "choose from" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_bfloat16_trains_on_a_cpu(toy, capsys):
    main([toy(), "--amp", "bfloat16", *ONE_EPOCH])
    assert "bfloat16 where it is safe" in capsys.readouterr().out


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_large_batch(toy):
    """Two batches of four, or one of eight: the same weights, to rounding."""
    fixed = "param_scheduler = []\ntrain_dataloader['sampler']['shuffle'] = False\n"
    main([toy(fixed), "--accumulate", "2", *ONE_EPOCH])
    accumulated = load()
    main([toy(fixed), *ONE_EPOCH, "train_dataloader.batch_size=8"])
    whole = load()
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(accumulated["state_dict"][key], value)
    # Schedules count batches, whether or not the weights change.
    assert (accumulated["meta"]["iter"], whole["meta"]["iter"]) == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ema", "1.5"], r"--ema must be between 0 and 1, got 1.5"),
        (["--lora", "4"], "--lora needs model.backbone.type=swin_mm.SwinTransformer .* is None"),
    ],
    ids=["ema", "lora"],
)
def test_values_that_make_no_sense(toy, options, message):
    with pytest.raises(ConfigError, match=message):
        apply(toy(), *options)


@pytest.mark.parametrize("option", ["--accumulate", "--early-stop"])
def test_counts_begin_at_one(toy, capsys, option):
    with pytest.raises(SystemExit):
        apply(toy(), option, "0")
    assert f"argument {option}: must be a whole number above 0, got '0'" in capsys.readouterr().err


def test_hooks_are_added_to_those_of_the_config(toy):
    config = toy("custom_hooks = [dict(type='MyHook')]\n")
    options = ["--ema", "0.1", "--val-loss", "--early-stop", "3", "--non-finite", "skip"]
    assert [dict(hook) for hook in apply(config, *options).custom_hooks] == [
        dict(type="MyHook"),
        dict(type="EMAHook", ema_type="swin_mm.ExponentialMovingAverage", momentum=0.1),
        dict(type="swin_mm.ValLossHook"),
        dict(type="swin_mm.EarlyStoppingHook", patience=3),
        dict(type="swin_mm.NonFiniteLossHook", action="skip"),
    ]


def test_a_hook_of_the_config_is_not_doubled(toy):
    config = toy("custom_hooks = [dict(type='mmdet.EMAHook')]\n")
    with pytest.raises(ConfigError, match="--ema: custom_hooks of the config has a EMAHook"):
        apply(config, "--ema")


@pytest.mark.parametrize("kind", ["SwinTransformer", "SwinTransformerV2"])
def test_lora_of_a_backbone(toy, kind):
    backbone = f"model = dict(backbone=dict(type='swin_mm.{kind}', lora=dict(alpha=4)))\n"
    assert apply(toy(backbone), "--lora", "8").model.backbone.lora == dict(alpha=4, r=8)


@pytest.mark.slow
def test_ema_is_validated_saved_and_resumed(toy):
    """Against the average by hand; a whole training equals one that was resumed."""
    ema = ["--ema", "0.25"]
    main([toy(), "--work-dir", "whole", *ema])
    main([toy(), *ema, "--resume", "whole/epoch_3.pth"])
    resumed, whole = load("epoch_4"), torch.load("whole/epoch_4.pth", weights_only=False)
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert str(resumed[part]) == str(whole[part])
    # `state_dict` holds the average, and beside it are the weights that training goes on with.
    main([toy(), "--work-dir", "plain"])
    plain = torch.load("plain/epoch_4.pth", weights_only=False)["state_dict"]
    assert torch.equal(whole["ema_state_dict"]["module.linear.weight"], plain["linear.weight"])
    assert not torch.equal(whole["state_dict"]["linear.weight"], plain["linear.weight"])


@pytest.mark.slow
def test_ema_weights_are_those_that_are_tested(toy):
    from swin_mm.cli import test

    main([toy(), "--ema", "0.25"])
    lines = next(Path("work_dirs/toy").glob("*/vis_data/scalars.json")).read_text().splitlines()
    validated = [json.loads(line)["toy/error"] for line in lines if "toy/error" in line]
    os.remove("work_dirs/toy/last_checkpoint")
    # With the hooks of training in the config or without.
    test.main([toy(), "work_dirs/toy/epoch_4.pth"])
    names = ("EMAHook", "swin_mm.EarlyStoppingHook", "swin_mm.ValLossHook")
    hooks = [dict(type=name) for name in (*names, "swin_mm.NonFiniteLossHook")]
    test.main([toy(f"custom_hooks = {hooks}\n"), "work_dirs/toy/epoch_4.pth"])
    tested = json.loads(Path("work_dirs/toy/metrics.json").read_text())["metrics"]
    assert tested["toy/error"] == pytest.approx(validated[-1])


def test_learning_rate_is_scaled_once(toy):
    cfg = Config.fromfile(toy("optim_wrapper['accumulative_counts'] = 3\n"))
    # 4 images x 2 x 3 for 8.
    line = scale_learning_rate(cfg, num_processes=2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.06)
    assert line == (
        "Learning rate scaled from 0.02, for 8 images a step, to 0.06, for 24: "
        "4 images x 2 processes x 3 accumulated batches"
    )
    scale_learning_rate(cfg, num_processes=2)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.06)


@pytest.mark.parametrize("by", ["option", "config"])
def test_scaling_is_told_and_done_once(toy, by, capsys):
    config = toy("param_scheduler = []\nauto_scale_lr['enable'] = True\n")
    if by == "option":
        config = toy("param_scheduler = []\n")
    main([config, *(["--auto-scale-lr"] if by == "option" else []), *ONE_EPOCH])
    assert load()["optimizer"]["param_groups"][0]["lr"] == 0.01
    assert "scaled from 0.02, for 8 images a step, to 0.01, for 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("auto_scale_lr = dict()", "auto_scale_lr.base_batch_size, the images per step"),
        ("del optim_wrapper['optimizer']['lr']", "optim_wrapper.optimizer.lr; the config"),
        ("del train_dataloader['batch_size']", "train_dataloader.batch_size; the config"),
    ],
    ids=["base", "rate", "batch"],
)
def test_scaling_needs_three_numbers(toy, change, message):
    with pytest.raises(ConfigError, match=f"--auto-scale-lr needs {message}"):
        scale_learning_rate(Config.fromfile(toy(change + "\n")), 1)


@pytest.mark.slow
def test_tensorboard_has_what_the_log_has(toy):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main([toy(), "--tensorboard", "--val-loss", *ONE_EPOCH])
    folder = next(Path("work_dirs/toy").glob("*/vis_data"))
    events = EventAccumulator(str(folder))
    events.Reload()
    records = [json.loads(line) for line in (folder / "scalars.json").read_text().splitlines()]
    validated = next(record for record in records if "toy/error" in record)
    for name in ("toy/error", "val/loss"):
        assert events.Scalars(name)[0].value == pytest.approx(validated[name])
    assert len(events.Scalars("loss")) == len([r for r in records if "loss" in r])


@pytest.mark.slow
def test_wandb_writes_a_run_without_a_connection(toy, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    main([toy(), "--wandb", *ONE_EPOCH])
    runs = list(Path("work_dirs/toy").glob("*/vis_data/wandb/offline-run-*/run-*.wandb"))
    assert len(runs) == 1
    # Another process writes it, and goes on for a moment.
    deadline = time.monotonic() + 30
    while b"toy/error" not in runs[0].read_bytes():
        assert time.monotonic() < deadline, runs[0].stat()
        time.sleep(0.1)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_missing_tracker_is_told(toy, monkeypatch, name):
    monkeypatch.setattr(train_options, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf"--{name} needs the package {name}: pip install"):
        apply(toy(), f"--{name}")


def test_tracker_of_the_config_is_not_doubled(toy):
    backend = "visualizer = dict(type='Visualizer', vis_backends=[dict(type='WandbVisBackend')])\n"
    pytest.importorskip("wandb")
    assert len(apply(toy(backend), "--wandb").visualizer.vis_backends) == 1
