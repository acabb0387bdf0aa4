"""The search for the largest batch, and lines for the config."""

import pytest
from mmengine.config import Config

from swin_mm.benchmark.batch_size import find_largest, write_lines
from swin_mm.benchmark.batch_trial import Trial
from swin_mm.cli.train_options import scale_learning_rate


@pytest.mark.parametrize("most", [1, 2, 3, 40])
@pytest.mark.parametrize("capacity", range(45))
def test_largest_is_found_and_nothing_is_tried_twice(capacity, most):
    tried = []

    def try_batch(batch):
        tried.append(batch)
        return Trial(batch, batch, 1.0) if batch <= capacity else Trial(batch)

    trials = find_largest(try_batch, most)
    fitting = [trial.batch for trial in trials if trial.fits]
    assert max(fitting, default=0) == min(capacity, most)
    assert sorted(tried) == [trial.batch for trial in trials]
    assert len(set(tried)) == len(tried) <= 11
    assert max(tried) <= most and max(tried) <= max(2, 2 * capacity)


def config(**changes):
    values = dict(
        train_dataloader=dict(batch_size=2),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-4)),
        auto_scale_lr=dict(enable=False, base_batch_size=16),
    )
    return Config({**values, **changes})


def run(lines):
    found = {}
    exec(lines, found)
    return found


@pytest.mark.parametrize(("gpus", "accumulated"), [(1, 1), (8, 1), (1, 4)])
def test_lines_do_what_the_option_would(gpus, accumulated):
    wrapper = dict(optimizer=dict(type="AdamW", lr=1e-4), accumulative_counts=accumulated)
    cfg = config(optim_wrapper=wrapper)
    found = run(write_lines(cfg, 12, gpus, scale_learning_rate))
    assert cfg.train_dataloader.batch_size == 2 and cfg.optim_wrapper.optimizer.lr == 1e-4
    images = 12 * gpus * accumulated
    assert found["train_dataloader"] == dict(batch_size=12)
    assert found["optim_wrapper"]["optimizer"]["lr"] == pytest.approx(1e-4 * images / 16)
    assert found["auto_scale_lr"] == dict(base_batch_size=images)


def test_without_a_base_there_is_no_rate():
    lines = write_lines(config(auto_scale_lr=None), 3, 1, scale_learning_rate)
    assert run(lines)["train_dataloader"] == dict(batch_size=3)
    assert "optim_wrapper" not in lines and "does not say for how many images" in lines
