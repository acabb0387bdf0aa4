"""Scalars for the log that are read from the device when somebody looks, not at every step.

mmengine's message hub takes each loss of each step to the CPU at once, so that the device, which
could be many operations behind, has to be waited for ten times a step. Here they stay where they
are until one of them is asked for: by a line of the log, a checkpoint, or a hook that reads them.
Then all that have been gathered come in one copy.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.hooks import RuntimeInfoHook as MMEngineRuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import Runner
from torch import Tensor

from swin_mm.registry import HOOKS

# Steps that wait for a reader at most, should there be none: a bound on memory, not a tuned number.
MAX_WAITING = 1000


class DeviceNumber:
    """Starts to copy a tensor of one element to the CPU; when read, it is mostly there already."""

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().to("cpu", non_blocking=True)
        self.copied = None
        if value.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def read(self) -> float:
        """Waits for the copy where it is not done."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.value.item()


class DeferredScalars(OrderedDict):
    """The histories of a message hub; who asks for one waits for values still on the device."""

    def __init__(self, histories: Any = ()) -> None:
        super().__init__(histories)
        self.waiting: list[tuple[list[str], Tensor]] = []

    def flush(self) -> None:
        """Waits for the device and gives the histories what has been gathered for them."""
        if not self.waiting:
            return
        numbers = iter(torch.cat([values for _, values in self.waiting]).tolist())
        gathered: dict[str, list[float]] = {}
        for names, _ in self.waiting:
            for name in names:
                gathered.setdefault(name, []).append(next(numbers))
        self.waiting.clear()
        for name, values in gathered.items():
            history = self[name]
            log, counts = history.data
            counts = np.append(counts, np.ones(len(values), int))
            history._log_history = np.append(log, values)[-history.max_length :]
            history._count_history = counts[-history.max_length :]

    def __getitem__(self, name: str) -> HistoryBuffer:
        self.flush()
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.flush()
        return super().get(name, default)

    def items(self) -> Any:
        self.flush()
        return super().items()

    def values(self) -> Any:
        self.flush()
        return super().values()


def add_deferred(hub: MessageHub, scalars: Mapping[str, Tensor]) -> None:
    """Adds one value of each scalar to a message hub without waiting for the device.

    `scalars` are tensors of one element by key in the hub, such as `train/loss`, on any device.
    What reads the hub notices nothing: the numbers are those that mmengine would have there.
    """
    if not isinstance(hub._log_scalars, DeferredScalars):
        hub._log_scalars = DeferredScalars(hub._log_scalars)
    deferred = hub._log_scalars
    known = {name: value for name, value in scalars.items() if name in deferred}
    for name, value in scalars.items():
        if name not in known:  # the hub has notes of a new key; the device is waited for once
            hub.update_scalar(name, value)
    if known:
        device = next(iter(known.values())).device
        # A copy, since a step may write into the tensors of the step before.
        values = [value.detach().reshape(1).to(device) for value in known.values()]
        deferred.waiting.append((list(known), torch.cat(values)))
    if len(deferred.waiting) >= MAX_WAITING:
        deferred.flush()


@HOOKS.register_module()
class RuntimeInfoHook(MMEngineRuntimeInfoHook):
    """mmengine's hook of this name, except that losses stay on the device until they are read.

    What is logged, drawn and saved is the same.

    Examples:
        default_hooks = dict(runtime_info=dict(type='swin_mm.RuntimeInfoHook'))
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        outputs = outputs or {}
        on_device = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
        losses = {f"train/{name}": value for name, value in on_device.items()}
        add_deferred(runner.message_hub, losses)
        others = {name: value for name, value in outputs.items() if name not in on_device}
        super().after_train_iter(runner, batch_idx, data_batch, others)
