"""Training from the command line, on a task of milliseconds."""

import os
import re
from pathlib import Path

import pytest
import torch
from zoo_server import serve

from swin_mm.checkpoint import CheckpointError, published
from swin_mm.cli.train import main
from swin_mm.configs import ConfigError


def load(epoch):
    return torch.load(f"work_dirs/toy/epoch_{epoch}.pth", weights_only=False)


def test_trains_and_leaves_checkpoints_log_and_curves(toy, capsys):
    main([toy(), "--cfg-options", "train_cfg.max_epochs=2"])
    written = {entry.name for entry in os.scandir("work_dirs/toy") if entry.is_file()}
    assert written == {"epoch_1.pth", "epoch_2.pth", "last_checkpoint", "toy.py", "curves.png"}
    output = capsys.readouterr().out
    assert output.count("│ schedule ") == 1
    for row in (
        "precision     │ float32 ",
        "batch         │ 4 images ",
        "learning rate │ 0.02 (SGD, made for a batch of 8; --auto-scale-lr",
        "model         │ ToyModel, 0.00 M parameters",
        "schedule      │ 2 epochs of 4 steps, validated every epoch",
    ):
        assert row in output
    assert "Epoch(train) [2][4/4]" in output
    assert "toy/error" in output


def test_the_terminal_shows_what_a_user_needs(toy, capsys):
    config = toy("default_hooks['checkpoint'].update(save_best='auto')\n")
    main([config, "--cfg-options", "train_cfg.max_epochs=1"])
    output = capsys.readouterr().out
    before_the_table = output.partition("\ntraining\n")[0].splitlines()
    assert len(before_the_table) < 10
    log = Path(re.search("^log: (.*)$", output, re.MULTILINE)[1]).read_text()
    for text in ("System environment:", "optimizer=dict(", "Hooks will be executed", "toy/error"):
        assert text in log
    checkpoint = "work_dirs/toy/best_toy_accuracy_epoch_1.pth"
    score = re.search(r"toy/accuracy: ([\d.]{5})", log)[1]
    assert f"\ncheckpoint: {checkpoint} (best toy/accuracy: {score}" in output
    assert output.endswith(
        f"\n\nnext:\n  swin-mm test {config} {checkpoint} --show-dir pictures\n"
        f"  swin-mm predict {config} {checkpoint} IMAGES\n  swin-mm export {config} {checkpoint}\n"
    )


def test_without_a_best_checkpoint_the_newest_is_named(toy, capsys):
    main([toy(), "--cfg-options", "train_cfg.max_epochs=1"])
    assert "\ncheckpoint: work_dirs/toy/epoch_1.pth (the newest)\n" in capsys.readouterr().out


@pytest.mark.slow
def test_resume_goes_on_as_if_there_had_been_no_stop(toy, capsys):
    config = toy()
    main([config, "--work-dir", "whole"])
    main([config, "--resume", "whole/epoch_3.pth"])
    assert "resumed       │ after epoch 3, step 12" in capsys.readouterr().out
    resumed, whole = load(4), torch.load("whole/epoch_4.pth", weights_only=False)
    for part in ("state_dict", "optimizer", "param_schedulers"):
        assert str(resumed[part]) == str(whole[part])


def test_resume_takes_the_newest_checkpoint_of_the_work_folder(toy, capsys):
    config = toy()
    main([config, "--cfg-options", "train_cfg.max_epochs=2"])
    os.remove("work_dirs/toy/last_checkpoint")
    main([config, "--resume"])
    assert "resumed       │ after epoch 2, step 8" in capsys.readouterr().out
    assert load(4)["meta"]["iter"] == 16


@pytest.mark.slow
def test_resume_with_nothing_to_resume_starts(toy, capsys):
    main([toy(), "--resume", "--cfg-options", "train_cfg.max_epochs=1"])
    said = capsys.readouterr().out
    assert "training starts at the beginning" in said and "esumed from" not in said
    assert "Did not find last_checkpoint" not in said
    assert load(1)["meta"]["iter"] == 4


def test_resume_with_nothing_to_resume_starts_from_the_weights_of_the_config(toy):
    """With a rate of 0 they come out as they went in; the next resume goes on instead."""
    main([toy(), "--work-dir", "first", "--cfg-options", "train_cfg.max_epochs=1"])
    first = torch.load("first/epoch_1.pth", weights_only=False)["state_dict"]
    state = {key: value + 1 for key, value in first.items()}
    torch.save({"state_dict": {"linear.weight": state["linear.weight"]}}, "start.pth")
    options = ["load_from=start.pth", "optim_wrapper.optimizer.lr=0", "train_cfg.max_epochs=1"]
    main([toy(), "--resume", "--cfg-options", *options])
    assert load(1)["meta"]["iter"] == 4
    assert torch.equal(load(1)["state_dict"]["linear.weight"], state["linear.weight"])
    torch.save({"state_dict": first}, "start.pth")
    main([toy(), "--resume", "--cfg-options", *options[:2], "train_cfg.max_epochs=2"])
    assert load(2)["meta"]["iter"] == 8
    assert torch.equal(load(2)["state_dict"]["linear.weight"], state["linear.weight"])


@pytest.mark.parametrize("part", ["optim_wrapper", "train_cfg", "train_dataloader", "val_cfg"])
def test_config_without_a_part_of_a_loop_is_refused_in_one_line(toy, part):
    with pytest.raises(ConfigError, match=rf"has no {part}[:,]"):
        main([toy(), "--amp", "--cfg-options", f"{part}=None"])
    assert not os.path.exists("work_dirs")


def test_resume_from_another_model_is_refused(toy):
    config = toy()
    main([config, "--cfg-options", "train_cfg.max_epochs=1"])
    with pytest.raises(CheckpointError, match="ballast is 0 there and 5 in the model"):
        main([config, "--resume", "--cfg-options", "model.ballast=5"])


@pytest.mark.parametrize("option", ["--resume", "load_from"])
def test_missing_checkpoint_is_told_before_work_starts(toy, option):
    options = ["--resume", "no.pth"] if option == "--resume" else ["--cfg-options", "load_from=no"]
    with pytest.raises(CheckpointError, match="no.pth: there is no such file|no file .* called no"):
        main([toy(), *options])
    assert not os.path.exists("work_dirs")


@pytest.mark.parametrize(
    "options", [["--weights", "zoo_toy", "--cfg-options"], ["--cfg-options", "load_from=zoo_toy"]]
)
def test_published_weights_are_started_from_by_name(toy, options, tmp_path, monkeypatch):
    """With a rate of 0 they come out as they went in."""
    main([toy(), "--cfg-options", "train_cfg.max_epochs=1"])
    state = {key: value + 1 for key, value in load(1)["state_dict"].items()}
    (tmp_path / "zoo").mkdir()
    torch.save({"state_dict": state}, tmp_path / "zoo" / "toy.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with serve(tmp_path / "zoo") as address:
        entry = published.Weights("zoo_toy", f"{address}/toy.pth", None, "toy.py", "toy", {})
        monkeypatch.setattr(published, "list_weights", lambda: (entry,))
        stay = ["optim_wrapper.optimizer.lr=0", "train_cfg.max_epochs=1"]
        main([toy(), *options, *stay])
    for key, value in load(1)["state_dict"].items():
        assert torch.equal(value, state[key]), key


def test_broken_weights_to_start_from_are_told(toy):
    torch.save({"a": torch.zeros(1000)}, "half.pth")
    os.truncate("half.pth", 3000)
    with pytest.raises(CheckpointError, match="half.pth: it is truncated at"):
        main([toy(), "--cfg-options", "load_from=half.pth"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_mixed_precision_without_a_gpu(toy, capsys, monkeypatch):
    monkeypatch.setattr("swin_mm.cli.train_options._has_only_amx", lambda: False)
    main([toy(), "--amp", "--cfg-options", "train_cfg.max_epochs=1"])
    assert "float32 (mixed precision was asked for, and needs a GPU)" in capsys.readouterr().out


def test_mixed_precision_needs_a_plain_wrapper(toy):
    with pytest.raises(ConfigError, match="--amp is for .*=OptimWrapper; it is ApexOptimWrapper"):
        main([toy(), "--amp", "--cfg-options", "optim_wrapper.type=ApexOptimWrapper"])


def test_accumulated_steps_count_in_the_batch(toy, capsys):
    options = ["train_cfg.max_epochs=1", "optim_wrapper.accumulative_counts=2"]
    main([toy(), "--cfg-options", *options])
    assert "8 = 4 images x 2 accumulated steps" in capsys.readouterr().out
