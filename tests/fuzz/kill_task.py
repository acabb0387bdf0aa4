"""The toy task with everything random that a training has: augmentation, dropout, batches."""

import multiprocessing
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from toy_task import ToyDataset, ToyModel, write_toy_config

CONFIG = """
custom_imports = dict(imports=['swin_mm', 'toy_task', 'kill_task'], allow_failed_imports=False)
model = dict(type='RandomToyModel')
train_dataloader['dataset'] = dict(type='RandomToyDataset', delay=0.01)
val_dataloader['dataset'] = dict(type='ToyDataset', delay=0.005)
test_cfg = test_dataloader = test_evaluator = None
"""


@DATASETS.register_module()
class RandomToyDataset(ToyDataset):
    """Draws from every generator that augmentation may draw from."""

    def __getitem__(self, index: int) -> dict:
        sample = super().__getitem__(index)
        noise = random.gauss(0, 1) + np.random.normal() + torch.randn(()).item()  # noqa: NPY002
        return {**sample, "inputs": sample["inputs"] + 0.1 * noise}


@MODELS.register_module()
class RandomToyModel(ToyModel):
    """With dropout, and with noise that NumPy draws in the main process, as mmdet's samplers do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)

    def forward(self, inputs: Tensor, **kwargs: Any) -> dict | list:
        if self.training:
            inputs = inputs + 0.01 * np.random.normal()  # noqa: NPY002
        return super().forward(self.dropout(self.norm(inputs)), **kwargs)


@HOOKS.register_module()
class RecordLosses(Hook):
    """Appends the loss of each step, to the bit, and the metrics of each validation to a file."""

    def before_train(self, runner: Runner) -> None:
        self.path = Path(runner.work_dir, "records", "losses")
        self.path.parent.mkdir(exist_ok=True)

    def _write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text + "\n")

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None):
        self._write(f"{runner.iter} {outputs['loss'].item().hex()}")

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        values = " ".join(f"{name}={value.hex()}" for name, value in sorted(metrics.items()))
        self._write(f"val_{runner.iter} {values}")


@HOOKS.register_module()
class SignalOnce(Hook):
    """Sends a signal after a step, to these ranks.

    Or to one of the `workers` of their data loaders in their place, or to all of them first.
    """

    def __init__(self, number: int, step: int, targets: tuple = (0,), workers: str = ""):
        self.number, self.step, self.workers = number, step, workers
        self.targets = targets

    def before_train(self, runner: Runner) -> None:
        self.is_due = runner.rank in self.targets and runner.iter == 0

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        if not self.is_due or runner.iter + 1 != self.step:
            return
        children = [child.pid for child in multiprocessing.active_children()]
        if self.workers == "one":
            os.kill(children[0], self.number)
            return
        for process in [*(children if self.workers == "all" else []), os.getpid()]:
            os.kill(process, self.number)
            time.sleep(0.05)


def write_kill_config(folder: Path, extra: str) -> Path:
    """Writes the config of the task, with `extra` lines at its end."""
    return write_toy_config(folder, CONFIG + extra)
