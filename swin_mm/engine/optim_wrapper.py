"""An optimizer wrapper that does not wait for the device to log the norm of the gradients."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper as MMEngineOptimWrapper
from torch import Tensor
from torch.optim import Optimizer

from swin_mm.engine.deferred_log import DeferredScalars
from swin_mm.registry import OPTIM_WRAPPERS


class DeferredGradNorm:
    """To be mixed into wrappers of mmengine: clips as they do, and logs the norm when it is read.

    Clipping itself needs no number on the CPU: torch scales the gradients by a tensor.

    Attributes:
        grad_norm: Norm of the gradients of the step that is being done, from clipping.
    """

    # What mmengine's wrappers have.
    message_hub: MessageHub
    optimizer: Optimizer
    clip_func: Callable[..., Tensor | None]
    clip_grad_kwargs: dict[str, Any]
    grad_name: str

    grad_norm: Tensor | None = None

    @cached_property
    def deferred(self) -> DeferredScalars:
        return DeferredScalars(self.message_hub)

    def _clip_grad(self) -> None:
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and parameter.grad is not None
        ]
        if not parameters:
            return
        norm = self.clip_func(parameters, **self.clip_grad_kwargs)
        if norm is not None:  # clipping by value has none
            self.grad_norm = norm
            self.deferred.add({f"train/{self.grad_name}": norm})


@OPTIM_WRAPPERS.register_module()
class OptimWrapper(DeferredGradNorm, MMEngineOptimWrapper):
    """mmengine's wrapper of this name, with the same arguments, that logs gradients' norms late."""
