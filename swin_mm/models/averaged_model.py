"""Weights averaged over time, all in one pass."""

import torch
from mmengine.model import ExponentialMovingAverage as MMEngineExponentialMovingAverage
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swin_mm.registry import MODELS


@MODELS.register_module()
class ExponentialMovingAverage(MMEngineExponentialMovingAverage):
    """mmengine's average of this name, which goes through the weights one by one.

    The arguments, the averages and what is saved are the same.

    Examples:
        custom_hooks = [
            dict(type='EMAHook', ema_type='swin_mm.ExponentialMovingAverage', momentum=0.0002)]
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Moves the averages towards the weights of a model, once in `interval` calls."""
        sources = model.state_dict() if self.update_buffers else dict(model.named_parameters())
        pairs = [(_own(mean), _own(sources[name])) for name, mean in self.avg_parameters.items()]
        if self.steps == 0:
            _copy(pairs)
        elif self.steps % self.interval == 0:
            self._average([pair for pair in pairs if pair[0].is_floating_point()])
        if not self.update_buffers:
            _copy(list(zip(self.module.buffers(), model.buffers(), strict=True)))
        self.steps += 1

    def _average(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        means = [mean for mean, _ in pairs]
        sources = [source.to(mean.device) for mean, source in pairs]
        torch._foreach_lerp_(means, sources, self.momentum)


def _own(tensor: Tensor) -> Tensor:
    """The values of a tensor; this process' part, where it is divided among several."""
    values = tensor.data
    return values.to_local() if isinstance(values, DTensor) else values


def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        targets, sources = zip(*pairs, strict=True)
        torch._foreach_copy_(targets, sources)
