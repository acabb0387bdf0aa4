"""Optimizer wrappers that do not wait for the device to log the norm of the gradients."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.logging import MessageHub, print_log
from mmengine.optim import AmpOptimWrapper as MMEngineAmpOptimWrapper
from mmengine.optim import OptimWrapper as MMEngineOptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

from swin_mm.engine.deferred_log import add_deferred
from swin_mm.engine.runner_parts import gather_tensor
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
            norm = gather_tensor(norm)
            self.grad_norm = norm
            add_deferred(self.message_hub, {f"train/{self.grad_name}": norm})


@OPTIM_WRAPPERS.register_module()
class OptimWrapper(DeferredGradNorm, MMEngineOptimWrapper):
    """mmengine's wrapper of this name, with the same arguments, that logs gradients' norms late."""


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(DeferredGradNorm, MMEngineAmpOptimWrapper):
    """mmengine's mixed precision wrapper, except that it also works where there is no GPU.

    mmengine's own does not start there, which ties a recipe to one kind of machine. Without a
    GPU this one trains in float32, and in bfloat16 if that is what `dtype` asks for: float16 is
    slow and incomplete on CPUs, and so is bfloat16 on those without instructions for it.

    It does not wait for the device to log the norm of the gradients, as `swin_mm.OptimWrapper`.

    Checkpoints are interchangeable; one from a CPU resumes on a GPU with a fresh loss scale.

    Args:
        loss_scale: As in mmengine; unused without a GPU.
        dtype: As in mmengine, by default float16; without a GPU all but bfloat16 mean float32.
        use_fsdp: As in mmengine; unused without a GPU.
        **kwargs: Arguments of `OptimWrapper`.
    """

    def __init__(
        self,
        loss_scale: float | str | dict = "dynamic",
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ) -> None:
        self.on_gpu = get_device() != "cpu"
        if self.on_gpu:
            super().__init__(loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        MMEngineOptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler("cpu", enabled=False)  # passes losses through
        self._scale_update_param = None
        is_bfloat16 = dtype in ("bfloat16", torch.bfloat16)
        self.cast_dtype = torch.bfloat16 if is_bfloat16 else None
        if not is_bfloat16:
            print_log(
                "float16 needs a GPU and there is none: training in float32 "
                "(optim_wrapper.dtype=bfloat16 trains in that)",
                logger="current",
            )

    @property
    def compute_dtype(self) -> torch.dtype:
        """What matrix products are computed in."""
        if self.on_gpu:
            return self.cast_dtype or torch.float16
        return self.cast_dtype or torch.float32

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """The context of a forward pass."""
        if self.compute_dtype == torch.float32:
            return MMEngineOptimWrapper.optim_context(self, model)
        return super().optim_context(model)

    def state_dict(self) -> dict:
        """The state of the optimizer and, on a GPU, of the loss scale."""
        state = super().state_dict()
        if not self.on_gpu:
            # Empty, which the scaler of a GPU could not load.
            del state["loss_scaler"]
        return state
