"""Training loops that go on, after a kill at any moment, as if there had been none."""

import signal
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterBasedTrainLoop
from mmengine.runner import Runner
from torch.utils.data import DataLoader, Dataset, Subset

from swin_mm.engine.hooks.checkpoint import CheckpointHook
from swin_mm.engine.randomness import STEP, VALIDATION, make_resumable, seed_generators
from swin_mm.engine.rank_state import check_same_start, share_buffers
from swin_mm.engine.stop_signals import StopSignals
from swin_mm.registry import LOOPS

SHELL_STATUS = 128  # what a shell adds to the number of a signal that ended a process


class ValidationStoppedError(Exception):
    """A signal ends a validation between two of its batches."""


class ResumableLoop:
    """To be mixed into mmengine's training loops, which see to the steps themselves.

    Attributes:
        skipped_batches: Batches to pass over that were trained on before a resume.
        epoch_start: The step at which the epoch began.
        validated_iter: The step after which the last validation was run.
        validation_batches: Batches of a validation that every rank has.
    """

    # What mmengine's loops have.
    runner: Runner
    dataloader: DataLoader
    _epoch: int
    _iter: int

    skipped_batches = 0
    epoch_start = 0
    validated_iter = 0
    validation_batches = 0

    def state(self, epoch: int, step: int) -> dict[str, int]:
        """What a checkpoint must say beside the number of epochs and steps done."""
        batches = 0 if epoch > self._epoch else step - self.epoch_start
        done = {"batches_of_epoch": batches, "validated_iter": self.validated_iter}
        return {**done, "images_per_step": self.images_per_step}

    def load_state(self, meta: dict[str, Any]) -> None:
        """Takes over `state` from the `meta` of a checkpoint, which others may have written."""
        self.validated_iter = meta.get("validated_iter", meta["iter"])
        now = self.images_per_step
        before = meta.get("images_per_step", now)
        self.skipped_batches = meta.get("batches_of_epoch", 0) * before // now
        if before != now:
            self.runner.logger.warning(
                f"The checkpoint is of steps of {before} images, this run's have {now}, while the "
                "learning rate stays as it was."
            )

    @property
    def images_per_step(self) -> int:
        """Images that all processes load for one step."""
        size = getattr(self.dataloader.batch_sampler, "batch_size", self.dataloader.batch_size)
        return (size or 1) * get_world_size()

    @property
    def sampler(self) -> Any:
        """What orders the samples."""
        return getattr(self.dataloader.batch_sampler, "sampler", self.dataloader.sampler)

    def _start(self) -> StopSignals:
        """Prepares a run, which may have been resumed with the seed of a checkpoint."""
        runner = self.runner
        check_same_start(runner)
        if hasattr(self.sampler, "seed") and not runner._randomness_cfg.get("diff_rank_seed"):
            self.sampler.seed = runner.seed
        if runner.val_loop is not None:
            _load_first_sample(runner.val_loop.dataloader)
        self.stop_signals = StopSignals(runner)
        return self.stop_signals

    def run_iter(self, *args: Any) -> None:
        """Runs one step, and ends the process after it where a signal asks for it."""
        seed_generators(STEP, self.runner.seed, get_rank(), self._iter)
        super().run_iter(*args)  # type: ignore[misc]  # of the loop that it is mixed into
        self._stop_if_asked()

    def _note_last_step(self, epoch: int) -> None:
        """Notes in the log what the step before a resume had noted there."""
        if self._iter:
            self.runner.message_hub.update_info("epoch", epoch)
            self.runner.message_hub.update_info("iter", self._iter - 1)

    def _is_validation_time(self) -> bool:
        raise NotImplementedError

    def _validate_if_due(self) -> None:
        """Validates where the schedule says so and it has not been done at this step."""
        self._decide_current_val_interval()  # type: ignore[attr-defined]  # as above
        is_due = self.runner.val_loop is not None and self._is_validation_time()
        if not is_due or self._iter in (0, self.validated_iter):
            return
        self._stop_if_asked()  # now, as a validation can take long
        share_buffers(self.runner)
        self.validation_batches = self._count_common_batches()
        before, self.validated_iter = self.validated_iter, self._iter
        seed_generators(VALIDATION, self.runner.seed, get_rank(), self._iter)
        try:
            self.runner.val_loop.run()
        except ValidationStoppedError:
            self.validated_iter = before
            self.runner.model.train()  # which divides a model that was gathered to be validated
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):  # it has put averaged weights in their place
                    hook._swap_ema_parameters()
        self._stop_if_asked()

    def _count_common_batches(self) -> int:
        if not self.stop_signals.is_distributed:
            return sys.maxsize
        loader = self.runner.val_loop.dataloader
        batches = torch.tensor(len(loader) if hasattr(loader, "__len__") else 0)
        all_reduce(batches, "min")
        return int(batches)

    def stop_validation_if_asked(self, batch: int) -> None:
        """Raises ValidationStoppedError after batch number `batch` where a signal asks to stop."""
        # Ranks can only agree after batches that all of them have.
        if batch < self.validation_batches and self.stop_signals.agree():
            raise ValidationStoppedError

    def _stop_if_asked(self) -> None:
        number = self.stop_signals.agree()
        if not number:
            return
        saved = [
            hook.save_interrupted(self.runner)
            for hook in self.runner.hooks
            if isinstance(hook, CheckpointHook)
        ]
        where = f"saved in {saved[0]}" if saved else "not saved, without swin_mm.CheckpointHook"
        self.runner.logger.warning(
            f"Stopped by {signal.Signals(number).name} after step {self._iter}, {where}; "
            "--resume goes on from there."
        )
        raise SystemExit(SHELL_STATUS + number)


@LOOPS.register_module()
class EpochBasedTrainLoop(ResumableLoop, MMEngineEpochBasedTrainLoop):
    """mmengine's loop, with the same arguments, that resumes exactly where it was.

    It resumes in the middle of an epoch at the next batch, runs a validation that was due, draws
    the random numbers that it would have drawn, and saves when a signal asks it to stop.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any):
        super().__init__(runner, dataloader, *args, **kwargs)
        make_resumable(self.dataloader, self)

    def load_state(self, meta: dict[str, Any]) -> None:
        """Also counts the steps that are left: each may have another number of images now."""
        super().load_state(meta)
        left = (self._max_epochs - meta["epoch"]) * len(self.dataloader) - self.skipped_batches
        self._max_iters = meta["iter"] + left

    def run(self) -> Any:
        """Trains; the process ends with status 128 + n when signal n has asked it to stop."""
        with self._start():
            self.runner.call_hook("before_train")
            self.epoch_start = self._iter - self.skipped_batches
            is_between_epochs = self.skipped_batches == 0
            self._note_last_step(self._epoch - is_between_epochs)
            if is_between_epochs:
                self._validate_if_due()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._validate_if_due()
            self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Trains on the batches of an epoch that are left."""
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for number, batch in enumerate(self.dataloader, self.skipped_batches):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1
        self.epoch_start = self._iter

    def _is_validation_time(self) -> bool:
        is_last = self._epoch == self._max_epochs
        return self._epoch >= self.val_begin and (is_last or self._epoch % self.val_interval == 0)


@LOOPS.register_module()
class IterBasedTrainLoop(ResumableLoop, MMEngineIterBasedTrainLoop):
    """mmengine's loop, with the same arguments, that resumes exactly where it was.

    At a resume it skips indices where mmengine loads batches to throw them away.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, *args: Any, **kwargs: Any):
        loader: DataLoader
        if isinstance(dataloader, dict):
            different = runner._randomness_cfg.get("diff_rank_seed", False)
            loader = runner.build_dataloader(dataloader, runner.seed, different)
        else:
            loader = dataloader
        # mmengine starts to load here, before it is known what to resume from.
        super().__init__(runner, _Unstarted(loader.dataset), *args, **kwargs)
        self.dataloader = loader
        make_resumable(loader, self)

    def run(self) -> Any:
        """Trains; the process ends with status 128 + n when signal n has asked it to stop."""
        with self._start():
            self.runner.call_hook("before_train")
            self.runner.call_hook("before_train_epoch")
            self.skipped_batches = self._iter
            self.dataloader_iterator = self._endless_batches()
            self._note_last_step(self._epoch)
            self._validate_if_due()
            while self._iter < self._max_iters and not self.stop_training:
                self.runner.model.train()
                self.run_iter(next(self.dataloader_iterator))
                self._validate_if_due()
            self.runner.call_hook("after_train_epoch")
            self.runner.call_hook("after_train")
        return self.runner.model

    def _endless_batches(self) -> Iterator[Any]:
        """Passes over the data without end; a sampler without end needs one."""
        for number in count():
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(number)
            step, skipped = self._iter, self.skipped_batches
            yield from self.dataloader
            if (step, skipped) == (self._iter, self.skipped_batches):
                raise ValueError("train_dataloader has no batch: its data set is empty")

    def _is_validation_time(self) -> bool:
        is_last = self._iter == self._max_iters
        return self._iter >= self.val_begin and (is_last or self._iter % self.val_interval == 0)


def _load_first_sample(loader: DataLoader) -> None:
    """Raises what a data set's pipeline would raise, before training and not after an epoch."""
    dataset: Any = loader.dataset
    if hasattr(dataset, "__getitem__") and len(dataset):
        next(iter(DataLoader(Subset(dataset, [0]), collate_fn=loader.collate_fn)))


class _Unstarted:
    """A data loader that loads nothing yet."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(())
