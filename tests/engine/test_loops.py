"""Step-based training resumes at the sample where it was, without loading those before it."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from toy_task import ToyDataset, write_toy_config

STEPS = """
train_cfg = dict(type='swin_mm.IterBasedTrainLoop', max_iters=11, val_begin=100)
train_dataloader['sampler'] = dict(type='InfiniteSampler', shuffle=True)
param_scheduler = []
default_hooks['checkpoint'].update(by_epoch=False, interval=7)
randomness = dict(seed=None)
"""


BY_EPOCH = """
train_cfg = dict(type='swin_mm.EpochBasedTrainLoop', max_epochs=3, val_begin=100)
optim_wrapper['accumulative_counts'] = 4
param_scheduler = []
"""


class RecordSamples(Hook):
    """Keeps the indices of the samples of each step."""

    def before_train(self, runner):
        self.steps = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.steps.append(data_batch["index"].tolist())


@pytest.fixture
def train(tmp_path):
    names = iter(range(100))

    def run(resume=False, workers=0):
        cfg = Config.fromfile(write_toy_config(tmp_path, STEPS))
        cfg.update(work_dir=str(tmp_path / "work"), resume=resume, log_level="WARNING")
        cfg.experiment_name = f"{tmp_path.name}_{next(names)}"
        cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
        if resume:
            cfg.load_from = str(tmp_path / "work" / "iter_7.pth")
        runner = Runner.from_cfg(cfg)
        record = RecordSamples()
        runner.register_hook(record)
        runner.train()
        return record.steps

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_in_the_order_of_the_first_run(train, workers):
    first = train(workers=workers)
    assert len(first) == 11
    assert train(resume=True, workers=workers) == first[7:]


def test_loads_no_sample_twice(train, monkeypatch):
    train()
    loaded = []
    load = ToyDataset.__getitem__
    monkeypatch.setattr(
        ToyDataset, "__getitem__", lambda self, index: loaded.append(index) or load(self, index)
    )
    train(resume=True)
    assert len(loaded) == 4 * 4 + 1  # and the first sample of the validation


@pytest.mark.parametrize(
    ("saved", "first", "factors"),
    [("epoch_3.pth", 24, [4, 4, 4, 4, 2, 2]), ("iter_21.pth", 21, [4] * 7)],
)
def test_resumed_with_larger_batches_gradients_are_means(tmp_path, saved, first, factors):
    """Of 4 batches of 8 images where they were of 2, and at the end of those that are left."""

    class RecordFactors(Hook):
        def before_train(self, runner):
            self.factors = []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.factors.append(int(1 / runner.optim_wrapper.scale_loss(torch.ones(()))))

    for size, epochs in ((2, 3), (8, 6)):
        cfg = Config.fromfile(write_toy_config(tmp_path, BY_EPOCH))
        cfg.update(work_dir=str(tmp_path / f"of_{size}"), resume=size == 8, log_level="ERROR")
        cfg.load_from = str(tmp_path / "of_2" / saved) if cfg.resume else None
        cfg.experiment_name = f"{tmp_path.name}_{size}"
        cfg.merge_from_dict({"train_dataloader.batch_size": size, "train_cfg.max_epochs": epochs})
        cfg.default_hooks.checkpoint.update(by_epoch=saved.startswith("epoch"), interval=3)
        runner = Runner.from_cfg(cfg)
        record = RecordFactors()
        runner.register_hook(record)
        runner.train()
    assert record.factors == factors
    assert runner.iter == runner.max_iters == first + len(factors)
