"""A progress bar on a terminal."""

import atexit
import sys
import time
from datetime import timedelta
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from swin_mm.registry import HOOKS

NOTE_SECONDS = 2.0  # between two looks at the loss, each of which waits for the device
FIGURES = {"train/loss": "loss {:.3f}", "train/lr": "lr {:.2e}", "train/time": "{:.2f} s/step"}


@HOOKS.register_module()
class ProgressHook(Hook):
    """Shows how far training, validation and testing are, below mmengine's log lines.

    Does nothing where standard output is not a terminal: files get the log lines alone.
    """

    priority = "LOW"  # mmengine's hooks have measured time and loss by then

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        self._open(runner)
        self.training = self._add("training", runner.max_iters, runner.iter)
        self.noted, self.note = -NOTE_SECONDS, ""  # when the loss was looked at, and what it was

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if not self.bar:
            return
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        if time.monotonic() - self.noted >= NOTE_SECONDS:
            self.noted, self.note = time.monotonic(), _describe_step(runner)
        title = f"epoch {loop.epoch + 1}/{loop.max_epochs}" if by_epoch else "training"
        done = dict(description=title, completed=runner.iter + 1, note=self.note)
        self.bar.update(self.training, **done)

    def before_val_epoch(self, runner: Runner) -> None:
        self.evaluation = self._add("validation", len(runner.val_dataloader))

    def before_test_epoch(self, runner: Runner) -> None:
        self._open(runner)
        self.evaluation = self._add("testing", len(runner.test_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if self.bar:
            self.bar.advance(self.evaluation)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.bar:
            self.bar.remove_task(self.evaluation)

    def after_train(self, *_: Any, **__: Any) -> None:
        if self.bar:
            self.bar.stop()
            for handler in self.handlers:
                handler.setStream(sys.stdout)
            self.bar = None

    after_test_epoch = after_train

    def _open(self, runner: Runner) -> None:
        if not (sys.stdout.isatty() and is_main_process()):
            return
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            expand=True,
        )
        terminal = sys.stdout
        self.bar.start()  # from here `sys.stdout` prints above the bar
        self.handlers = [h for h in runner.logger.handlers if getattr(h, "stream", 0) is terminal]
        for handler in self.handlers:
            handler.setStream(sys.stdout)
        # An error must not leave the terminal without a cursor.
        atexit.register(self.after_train)

    def _add(self, title: str, total: int, completed: int = 0) -> Any:
        return self.bar and self.bar.add_task(title, total=total, completed=completed, note="")


def _describe_step(runner: Runner) -> str:
    """Loss, learning rate, time and memory, from what mmengine has logged of this step."""
    scalars, parts = runner.message_hub.log_scalars, []
    if "eta" in runner.message_hub.runtime_info:
        remaining = int(runner.message_hub.get_info("eta"))
        parts.append(f"{timedelta(seconds=remaining)} left")
    for name, text in FIGURES.items():
        if name in scalars:
            parts.append(text.format(scalars[name].current()))
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return "  ".join(parts)
