"""The loss on the validation data, beside its metrics."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import DataLoader

from swin_mm.configs import bare_type, innermost_dataset
from swin_mm.engine.runner_parts import bare_model
from swin_mm.registry import HOOKS

SEED = 0
# Random or, as batch norm, changed by training's forward pass; all else is the same in both modes,
# except that some heads compute what their losses need in training mode alone.
QUIET = (_BatchNorm, _DropoutNd, DropPath, nn.MultiheadAttention)


@HOOKS.register_module()
class ValLossHook(Hook):
    """Adds `val/loss` and its parts to the metrics of each validation.

    So they are in the log and in `curves.png`, and can be what the best checkpoint
    (`save_best='val/loss'`) or early stopping goes by. The metrics themselves stay what they are.

    The images are those of validation, at its size, with their annotations resized as the images
    are: mmdet's and mmseg's own pipelines load them afterwards, in the size of the original. There
    are no gradients, no dropout and no stochastic depth; batch norm uses its running statistics.
    Weights are those that are validated, so averaged ones where there is an `EMAHook`. What a loss
    draws at random, such as RoIs, is drawn from the same seed each time, and training goes on with
    the random numbers it would have had.

    It costs one more pass over the validation data.
    """

    priority = "HIGHEST"  # before mmengine logs metrics, and before weights are exchanged again

    def __init__(self) -> None:
        self.loader: DataLoader | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        # Of what has "loss" in its name mmengine logs a mean, here over all validations so far.
        scalars = runner.message_hub.log_scalars
        for name in [name for name in scalars if name.startswith("val/val/")]:
            del scalars[name]

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if metrics is None:
            return
        model: Any = bare_model(runner)
        with torch.no_grad(), _fixed_random_numbers(), _mode_of_losses(model):
            if self.loader is None:
                self.loader = _build_loader(runner)
            losses = _mean_losses(model, self.loader)
        metrics.update({f"val/{name}": value for name, value in losses.items()})


def _build_loader(runner: Runner) -> DataLoader:
    settings = deepcopy(runner.cfg.val_dataloader)
    _load_annotations_first(settings.dataset)
    # Not kept beside those of training and validation.
    settings.persistent_workers = False
    return runner.build_dataloader(settings)


def _load_annotations_first(dataset: dict) -> None:
    """Moves the loading of annotations in a pipeline up to that of the image."""
    dataset = innermost_dataset(dataset)
    if "pipeline" not in dataset:
        return
    names = [bare_type(step) for step in dataset["pipeline"]]
    is_annotation = ["Annotations" in name for name in names]
    if not any(is_annotation):
        raise ValueError(
            "ValLossHook needs annotations, and the pipeline of val_dataloader loads none: add "
            "LoadAnnotations to it, with_mask=True for masks"
        )
    # The image's own loading comes first in every pipeline, in one step or several.
    place = next(i for i, name in enumerate(names) if not name.startswith("Load"))
    steps = list(zip(is_annotation, dataset["pipeline"], strict=True))
    moved = [step for is_one, step in steps[place:] if is_one]
    others = [step for is_one, step in steps[place:] if not is_one]
    dataset["pipeline"] = [*dataset["pipeline"][:place], *moved, *others]


@contextmanager
def _fixed_random_numbers() -> Iterator[None]:
    """Starts all random numbers from a fixed seed, and gives back those there were."""
    # mmdet draws from NumPy's global generator.
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def _mode_of_losses(model: BaseModel) -> Iterator[None]:
    """Puts a model in training mode, but for what is random in it or changes by being used."""
    modes = {module: module.training for module in model.modules()}
    # The augmentation of whole batches is part of the preprocessor.
    preprocessor = model.data_preprocessor
    augments = getattr(preprocessor, "batch_augments", None)
    model.train()
    if hasattr(model, "backbone"):
        model.backbone.eval()
    for module in model.modules():
        if isinstance(module, QUIET):
            module.eval()
    if augments is not None:
        preprocessor.batch_augments = None
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        if augments is not None:
            preprocessor.batch_augments = augments


def _mean_losses(model: BaseModel, loader: DataLoader) -> dict[str, float]:
    """Averages what a model logs of its losses over the images of all processes."""
    sums: dict[str, torch.Tensor] = {}
    count = 0
    for batch in loader:
        data = model.data_preprocessor(batch, True)
        _, losses = model.parse_losses(model._run_forward(data, mode="loss"))
        images = len(data["inputs"])
        count += images
        for name, value in losses.items():
            sums[name] = sums.get(name, 0) + value.detach().double() * images
    found = torch.stack([*sums.values(), torch.full_like(next(iter(sums.values())), count)])
    all_reduce(found)
    *totals, count = found.tolist()
    return {name: total / count for name, total in zip(sums, totals, strict=True)}
