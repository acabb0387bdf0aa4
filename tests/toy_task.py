"""A regression task that trains in milliseconds, for tests of tools and hooks.

Everything about it is repeatable: two runs with one seed end with the same weights, bit for bit.
"""

import time
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset

NUM_SAMPLES = 16


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Noisy samples of a linear function of four inputs."""

    metainfo = {"classes": ("a", "b")}

    def __init__(self, delay: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(NUM_SAMPLES, 4, generator=generator)
        self.targets = self.inputs.sum(1) + 0.1 * torch.randn(NUM_SAMPLES, generator=generator)
        self.delay = delay  # seconds

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __getitem__(self, index: int) -> dict:
        time.sleep(self.delay)
        return {"inputs": self.inputs[index], "target": self.targets[index], "index": index}


@MODELS.register_module()
class ToyModel(BaseModel):
    """One linear layer, and `ballast` numbers that only make its checkpoints large."""

    def __init__(self, ballast: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.register_buffer("ballast", torch.zeros(ballast))

    def forward(
        self, inputs: Tensor, target: Tensor, index: Tensor, mode: str = "tensor"
    ) -> dict | list:
        error = self.linear(inputs).squeeze(1) - target
        if mode == "loss":
            return {"loss": error.square().mean()}
        return list(error)


@METRICS.register_module()
class ToyMetric(BaseMetric):
    """Mean absolute error."""

    default_prefix = "toy"

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results += [abs(float(error)) for error in data_samples]

    def compute_metrics(self, results: list) -> dict:
        error = sum(results) / len(results)
        return {"error": error, "accuracy": 1 / (1 + error)}


CONFIG = """
custom_imports = dict(imports=['swin_mm', 'toy_task'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(type='ToyModel')
loader = dict(
    batch_size=4, num_workers=0, dataset=dict(type='ToyDataset'),
    collate_fn=dict(type='default_collate'))
train_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=True), **loader)
val_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), **loader)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='ToyMetric')
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.01))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[2, 3], gamma=0.3)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=2),
    checkpoint=dict(type='swin_mm.CheckpointHook', interval=1))
randomness = dict(seed=1)
auto_scale_lr = dict(enable=False, base_batch_size=8)
"""


def write_toy_config(folder: Path, extra: str = "") -> Path:
    """Writes the config of the task to `folder/toy.py`, with `extra` lines at its end."""
    path = folder / "toy.py"
    path.write_text(CONFIG + extra)
    return path
