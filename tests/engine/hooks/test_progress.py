"""The progress bar: on a terminal it shows how far things are, elsewhere it keeps silent."""

import io
import sys

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from toy_task import write_toy_config

from swin_mm.engine.hooks import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "NOTE_SECONDS", 0.0)

    def train_and_test(stream, columns="200", extra=""):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("TERM", "xterm-256color")
        cfg = Config.fromfile(write_toy_config(tmp_path, extra))
        cfg.update(work_dir=str(tmp_path), experiment_name=f"{tmp_path.name}_{columns}")
        cfg.default_hooks.progress = dict(type="swin_mm.ProgressHook")
        runner = Runner.from_cfg(cfg)
        runner.train()
        runner.test()
        return runner, stream.getvalue()

    return train_and_test


def test_terminal_shows_training_validation_and_testing(run):
    terminal = Terminal()
    runner, text = run(terminal)
    for part in ("epoch 4/4", "16/16", "loss ", "lr 1.80e-03", "s/step", "left"):
        assert part in text
    assert "validation" in text and "testing" in text and "4/4" in text
    # mmengine's lines are above the bar, not lost and not in its midst.
    assert "Epoch(train) [4][4/4]  lr: 1.8000e-03" in text
    # The terminal is as it was: its cursor shown again, its stream in place.
    assert text.rstrip().endswith("\x1b[?25h")
    assert sys.stdout is terminal
    streams = [getattr(handler, "stream", None) for handler in runner.logger.handlers]
    assert terminal in streams
    assert isinstance(runner.logger, MMLogger)


def test_loss_is_looked_at_now_and_then(run, monkeypatch):
    looks = []
    monkeypatch.setattr(progress, "NOTE_SECONDS", 1000.0)
    monkeypatch.setattr(progress, "_describe_step", lambda runner: looks.append(runner) or "seen")
    _, text = run(Terminal())
    assert "seen" in text and "16/16" in text
    assert len(looks) == 1  # each waits for the device


def test_steps_are_counted_where_there_are_no_epochs(run):
    extra = """
train_cfg = dict(by_epoch=False, max_iters=5, val_interval=5)
param_scheduler = []
"""
    _, text = run(Terminal(), extra=extra)
    assert "training" in text and "5/5" in text and "epoch 1/1" not in text


def test_files_get_log_lines_only(run):
    runner, text = run(io.StringIO())
    assert "\x1b[2K" not in text and "━" not in text
    assert "Epoch(train) [4][4/4]" in text
