"""mmengine's notes on every step, taken without waiting for the device."""

from typing import Any

from mmengine.hooks import RuntimeInfoHook as MMEngineRuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from swin_mm.engine.deferred_log import DeferredScalars
from swin_mm.registry import HOOKS


@HOOKS.register_module()
class RuntimeInfoHook(MMEngineRuntimeInfoHook):
    """mmengine's hook of this name, except that losses stay on the device until they are read.

    What is logged, drawn and saved is the same.

    Examples:
        default_hooks = dict(runtime_info=dict(type='swin_mm.RuntimeInfoHook'))
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.losses = DeferredScalars(runner.message_hub)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        outputs = outputs or {}
        on_device = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
        self.losses.add({f"train/{name}": value for name, value in on_device.items()})
        others = {name: value for name, value in outputs.items() if name not in on_device}
        super().after_train_iter(runner, batch_idx, data_batch, others)
