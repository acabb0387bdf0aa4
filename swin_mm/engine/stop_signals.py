"""Signals that ask a training to stop: it ends after its step, in all processes after the same."""

import os
import signal
import time
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.runner import Runner

from swin_mm.engine.device_number import DeviceNumber

# Of a terminal and of torchrun, of preemption, and of Slurm's `--signal`.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# torchrun passes on a Ctrl-C that its processes have from the terminal as well.
REPEAT_SECONDS = 2.0


class StopSignals:
    """While entered, notes the signals that ask the process to stop; the second ends it at once.

    Several processes agree on the step: the signal of any is that of all, one step later.

    Args:
        runner: The runner, for its log and its device.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.is_distributed = get_dist_info()[1] > 1
        self.number = 0  # of the signal, 0 for none
        self.noted = 0.0
        self.shared: DeviceNumber | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            try:
                self.handlers[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread may
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.number:
            if self.is_distributed and time.monotonic() - self.noted < REPEAT_SECONDS:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number, self.noted = number, time.monotonic()
        self.runner.logger.warning(f"{name}: saving and stopping; a second one stops at once.")

    def agree(self) -> int:
        """The number of the signal to stop for now, or 0; all processes must ask together."""
        if not self.is_distributed:
            return self.number
        agreed = int(self.shared.read()) if self.shared else 0
        device = next(self.runner.model.parameters()).device
        number = torch.full((1,), self.number, dtype=torch.int32, device=device)
        all_reduce(number, "max")
        self.shared = DeviceNumber(number)
        return agreed
