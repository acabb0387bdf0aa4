"""Scalars for the log that are read from the device when somebody looks, not at every step.

mmengine's message hub takes each loss of each step to the CPU at once, so that the device, which
could be many operations behind, has to be waited for ten times a step. Here they stay where they
are until one of them is asked for: by a line of the log, a checkpoint, or a hook that reads them.
Then all that have been gathered come in one copy.
"""

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
    """Starts to copy a number to the CPU; by the time it is read it will mostly be there.

    Args:
        value: A tensor of one element, on any device.
    """

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


class DeferredScalars:
    """Adds scalars to a message hub without waiting for the device.

    What reads the hub notices nothing: the numbers are those that mmengine would have there.

    Args:
        hub: The hub. Its histories of these scalars are replaced by `DeferredHistory`.
    """

    def __init__(self, hub: MessageHub) -> None:
        self.hub = hub
        self.waiting: list[tuple[list[DeferredHistory], Tensor]] = []

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Adds one value of each scalar.

        Args:
            scalars: Tensors of one element by key in the hub, such as `train/loss`; on any device.
        """
        histories, values = [], []
        for key, value in scalars.items():
            history = self.hub.log_scalars.get(key)
            if history is None:
                # So that the hub notes what it notes of a new key; the device is waited for once.
                self.hub.update_scalar(key, value)
                continue
            if not isinstance(history, DeferredHistory) or history.source is not self:
                history = self.hub.log_scalars[key] = DeferredHistory(history, self)
            histories.append(history)
            values.append(value.detach().reshape(1))
        if not values:
            return
        # A copy, since a step may write into the tensors of the step before.
        device = values[0].device
        self.waiting.append((histories, torch.cat([value.to(device) for value in values])))
        if len(self.waiting) >= MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Waits for the device and gives the histories what has been gathered for them."""
        if not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        numbers = iter(torch.cat([values for _, values in waiting]).tolist())
        gathered: dict[DeferredHistory, list[float]] = {}
        for histories, _ in waiting:
            for history in histories:
                gathered.setdefault(history, []).append(next(numbers))
        for history, values in gathered.items():
            history.extend(values)


class DeferredHistory(HistoryBuffer):
    """mmengine's history of a scalar, some of whose values may still be on the device.

    It is saved as mmengine's own, so that checkpoints can be read without swin_mm.

    Args:
        history: What there is so far.
        source: What gathers further values.
    """

    def __init__(self, history: HistoryBuffer, source: DeferredScalars) -> None:
        self.source = source
        self.known = history.data
        self.max_length = history.max_length
        self._set_default_statistics()

    def extend(self, values: list[float]) -> None:
        """Adds values, each counted once."""
        log, counts = self.known
        log, counts = np.append(log, values), np.append(counts, np.ones(len(values), int))
        self.known = log[-self.max_length :], counts[-self.max_length :]

    # The methods of the parent read and write these two.
    @property
    def _log_history(self) -> np.ndarray:
        self.source.flush()
        return self.known[0]

    @_log_history.setter
    def _log_history(self, values: np.ndarray) -> None:
        self.known = values, self.known[1]

    @property
    def _count_history(self) -> np.ndarray:
        self.source.flush()
        return self.known[1]

    @_count_history.setter
    def _count_history(self, values: np.ndarray) -> None:
        self.known = self.known[0], values

    def __reduce__(self) -> tuple:
        return HistoryBuffer, (*self.data, self.max_length)


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
