"""Signals that ask a training to stop: it ends after its step, in all ranks after the same one."""

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, get_dist_info
from mmengine.runner import Runner

from swin_mm.engine.deferred_log import DeviceNumber

# Of a terminal that is closed, of Ctrl-C, of preemption, and of Slurm's `--signal`. torchrun hands
# the first three on to its processes.
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# torchrun repeats a Ctrl-C that its processes get from the terminal too, and `timeout` signals its
# process and then the group of that process.
REPEAT_SECONDS = 2.0


class StopSignals:
    """While entered, notes the signals that ask the process to stop; the second ends it at once.

    Several ranks agree on the step: a signal to any rank stops all of them, one step later.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.rank, world_size = get_dist_info()
        self.is_distributed = world_size > 1
        self.number = 0  # of the signal, 0 for none
        self.noted = 0.0
        self.shared: DeviceNumber | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_IGN:  # as under nohup
                continue
            try:
                self.handlers[number] = signal.signal(number, self._note)
            except ValueError:  # only the main thread may
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if time.monotonic() - self.noted > REPEAT_SECONDS:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        self.number, self.noted = number, time.monotonic()
        if self.rank == 0:
            name = signal.Signals(number).name
            text = f"\n{name}: saving and stopping after this step; another one stops at once.\n"
            # The log may be in the middle of a line, and must not be entered a second time.
            with suppress(OSError):  # the terminal may be gone
                os.write(2, text.encode())

    def agree(self) -> int:
        """The number of the signal to stop for now, or 0; all ranks must ask together."""
        if not self.is_distributed:
            return self.number
        agreed = int(self.shared.read()) if self.shared else 0
        device = next(self.runner.model.parameters()).device
        number = torch.full((1,), self.number, dtype=torch.int32, device=device)
        all_reduce(number, "max")
        self.shared = DeviceNumber(number)
        return agreed
