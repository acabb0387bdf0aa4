"""A progress bar on a terminal."""

import atexit
import logging
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
        self.noted = -NOTE_SECONDS  # when the loss was looked at
        self.note = ""
        if self.bar:
            self.training = self.bar.add_task(
                "training", total=runner.max_iters, completed=runner.iter, note=""
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        if self.bar:
            loop = runner.train_loop
            by_epoch = isinstance(loop, EpochBasedTrainLoop)
            if time.monotonic() - self.noted >= NOTE_SECONDS:
                self.noted, self.note = time.monotonic(), _describe_step(runner)
            title = f"epoch {loop.epoch + 1}/{loop.max_epochs}" if by_epoch else "training"
            self.bar.update(
                self.training,
                description=title,
                completed=runner.iter + 1,
                note=self.note,
            )

    def after_train(self, runner: Runner) -> None:
        self._close()

    def before_val_epoch(self, runner: Runner) -> None:
        self._add("validation", len(runner.val_dataloader))

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        self._advance()

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.bar:
            self.bar.remove_task(self.evaluation)

    def before_test_epoch(self, runner: Runner) -> None:
        self._open(runner)
        self._add("testing", len(runner.test_dataloader))

    def after_test_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        self._advance()

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._close()

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
        self.handlers = [
            handler
            for handler in runner.logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is terminal
        ]
        for handler in self.handlers:
            handler.setStream(sys.stdout)
        # An error must not leave the terminal without a cursor.
        atexit.register(self._close)

    def _close(self) -> None:
        if self.bar:
            self.bar.stop()
            for handler in self.handlers:
                handler.setStream(sys.stdout)
            self.bar = None

    def _add(self, title: str, total: int) -> None:
        if self.bar:
            self.evaluation = self.bar.add_task(title, total=total, note="")

    def _advance(self) -> None:
        if self.bar:
            self.bar.advance(self.evaluation)


def _describe_step(runner: Runner) -> str:
    """Loss, learning rate, time and memory, from what mmengine has logged of this step."""
    scalars = runner.message_hub.log_scalars
    parts = []
    if "eta" in runner.message_hub.runtime_info:
        remaining = int(runner.message_hub.get_info("eta"))
        parts.append(f"{timedelta(seconds=remaining)} left")
    if "train/loss" in scalars:
        parts.append(f"loss {scalars['train/loss'].current():.3f}")
    if "train/lr" in scalars:
        parts.append(f"lr {scalars['train/lr'].current():.2e}")
    if "train/time" in scalars:
        parts.append(f"{scalars['train/time'].current():.2f} s/step")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    return "  ".join(parts)
