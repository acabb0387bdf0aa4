"""Step-based training resumes at the sample where it was, without loading those before it."""

import pytest
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
