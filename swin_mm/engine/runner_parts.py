"""The parts of a runner, whatever is wrapped around them."""

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def bare_model(runner: Runner) -> nn.Module:
    """The model of a runner without what distributes it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optim_wrappers(runner: Runner) -> list[OptimWrapper]:
    """The wrapper of each optimizer of a runner."""
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]
