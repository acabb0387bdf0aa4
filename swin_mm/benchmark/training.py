"""A model and its optimizer as training has them, and batches to train on."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from swin_mm.benchmark.whole import build_model, make_batch
from swin_mm.benchmark.work import Size
from swin_mm.configs import ConfigError

Batch = dict[str, Any]


def build_training(cfg: Config, device: torch.device) -> tuple[nn.Module, OptimWrapper]:
    """Builds what takes training steps, with random weights.

    Args:
        cfg: Whole config of a detector or a segmentor.
        device: Where the model lives.

    Returns:
        The model in training mode, and the wrapper of its optimizer.
    """
    model = build_model(cfg, device).train()
    return model, build_optim_wrapper(model, deepcopy(cfg.optim_wrapper))


def random_batches(cfg: Config, batch: int, size: Size) -> Iterator[Batch]:
    """Gives the same batch of random images again and again.

    Args:
        cfg: Whole config.
        batch: Images in it.
        size: `(H, W)` in pixels.
    """
    data = make_batch(cfg, batch, size)
    while True:
        yield deepcopy(data)  # preprocessing may write into it


def loaded_batches(cfg: Config) -> Iterator[Batch]:
    """Gives the batches that training would get, epoch after epoch, by its own data loader.

    Raises:
        ConfigError: The data are not where the config says.
    """
    loader = build_loader(cfg, "--size HxW --batch N takes random images instead")
    while True:
        yield from loader


def build_loader(
    cfg: Config, cure: str = "--made-images N makes some and measures with them"
) -> DataLoader:
    """Builds the train loader of a config.

    Args:
        cfg: Whole config.
        cure: What to do where there are no data, for the error.

    Raises:
        ConfigError: The data are not where the config says.
    """
    init_default_scope(cfg.default_scope)
    try:
        return Runner.build_dataloader(deepcopy(cfg.train_dataloader), seed=0)
    except FileNotFoundError as error:
        raise ConfigError(
            f"the training data of the config are not there ({error}): {cure}"
        ) from error
