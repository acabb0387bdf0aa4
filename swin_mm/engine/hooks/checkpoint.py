"""Checkpoints that survive `kill -9` at any moment."""

import inspect
import re
from collections import deque
from collections.abc import Iterable
from functools import partial
from os import path as osp
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, barrier, get_rank, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import BaseLoop, Runner

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.finite import list_non_finite
from swin_mm.checkpoint.report import list_names
from swin_mm.engine.checkpoint_files import (
    ATOMIC_BACKEND,
    POINTER_NAME,
    remove_partial_files,
    write_atomically,
)
from swin_mm.engine.rank_state import (
    Gradients,
    count_batches,
    gather_gradients,
    set_batch_counts,
    set_gradients,
    share_buffers,
)
from swin_mm.engine.sharded_checkpoint import FILE_SUFFIX, make_file
from swin_mm.engine.sharding import is_sharded
from swin_mm.engine.work_folders import find_writers, point_to_newest
from swin_mm.registry import HOOKS

# What a task is judged by, whatever evaluator measures it: those of single classes, or an accuracy
# of pixels, may come before it.
MAIN_METRICS: tuple[str, ...] = ("bbox_mAP", "segm_mAP", "mAP", "bbox_AP", "segm_AP", "AP", "PQ")
MAIN_METRICS += ("mIoU", "mDice", "mFscore")

# What a signal that stops training leaves to resume from.
INTERRUPTED = "interrupted.pth"
GRADIENTS = "accumulated_gradients"  # key in a checkpoint
BATCHES = "batches_of_optimizers"  # key in its meta
# Names in the message hub: files about to be deleted. A run that is killed before they are gone
# deletes them when it is resumed.
OUTDATED = "outdated_ckpt_ids"
REPLACED = "replaced_best_ckpts"
BEST_METRIC = "best_metric"  # that the one best score is of, and its rule


def by_importance(metrics: Iterable[str]) -> list[str]:
    """Names of metrics, those of whole tasks first and else in their order."""
    return sorted(metrics, key=lambda name: name.rpartition("/")[2] not in MAIN_METRICS)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's checkpoint hook, with the same arguments, that never leaves less than it found.

    A checkpoint appears under its name only when it is whole, and an older one is deleted only when
    the newer one is there; mmengine deletes first and writes in place. Before an automatic resume
    it makes `last_checkpoint` name the newest whole checkpoint, so that training resumes whatever
    state the folder was left in, also when mmdet's or mmseg's own tool starts it. After a
    validation the newest checkpoint is saved anew, so that a resume knows what was validated, how
    well, and what other hooks made of it. Nothing that is NaN or infinite is saved.

    `save_best='auto'` is the first of `MAIN_METRICS` that is measured, or else the first metric
    whose name says whether more of it is better; where none does, no best checkpoint is kept, and
    the log says so.

    On machines that do not share the work folder, the first process of each machine writes, and
    an automatic resume gives every machine the checkpoint that is furthest.

    Where a model is sharded, checkpoints of steps are folders, which every process writes its part
    of, and best ones are files. At the end the newest becomes a file. Both are resumed by any
    number of processes, sharded or not.

    Args:
        *args: As in mmengine.
        whole_files: Whether all checkpoints of a sharded model are files, written by the first
            process: for machines without a shared disk.
        **kwargs: As in mmengine.

    Remote storage (`backend_args`, `file_client_args`, an `out_dir` with a scheme) is used as
    mmengine would.
    """

    # The last are of panoptic segmentation, of LVIS and of mmseg's IoUMetric.
    _default_greater_keys = [*MMEngineCheckpointHook._default_greater_keys, "PQ", "AP", "Fscore"]

    backend_args: dict | None
    keep_ckpt_ids: deque[int]

    def __init__(self, *args: Any, whole_files: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.whole_files = whole_files
        self.has_folders = False
        is_remote = self.file_client_args or self.backend_args or "://" in str(self.out_dir or "")
        if not is_remote:
            self.backend_args = {"backend": ATOMIC_BACKEND}
        self.is_local = not is_remote
        self.writers = [0]  # ranks
        self.gradients: list[Gradients] | Gradients | None = None
        self.batches: dict[str, int] = {}
        self.saved_iter: int | None = None  # of the newest checkpoint of this run
        self.is_best_new = False
        self.replaced: list[str] = []  # best checkpoints, until they are deleted
        self.later: list[str] = []  # those of steps that a resumed run has yet to do again

    def before_run(self, runner: Runner) -> None:
        """Tidies the folder and corrects `last_checkpoint`, which the runner reads next."""
        self.has_folders = is_sharded(runner) and self.is_local and not self.whole_files
        is_training = isinstance(runner._train_loop, BaseLoop)
        if not (is_training and self.is_local):
            return
        self.writers = find_writers(Path(runner.work_dir))
        if self.is_writer:
            folders = {self._folder(runner), Path(runner.work_dir)}
            for path in [path for folder in folders for path in remove_partial_files(folder)]:
                runner.logger.info(f"Removed {path}, which a killed run left unfinished.")
        if runner._resume and runner._load_from is None:
            templates = (self.filename_tmpl, INTERRUPTED)
            point_to_newest(runner, self._folder(runner), templates, self.writers)
        barrier()
        if is_sharded(runner):  # whatever the machines share, all write one folder or the first
            self.writers = [0]
        elif self.is_writer and not is_main_process():  # mmengine has the first alone save
            save = inspect.unwrap(type(runner).save_checkpoint)
            vars(runner)["save_checkpoint"] = partial(save, runner)

    @property
    def is_writer(self) -> bool:
        """Whether this process writes checkpoints, and deletes them."""
        return get_rank() in self.writers

    def _folder(self, runner: Runner) -> Path:
        """The folder of the checkpoints, as `before_train` will compute it."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return Path(runner.work_dir)
        return Path(self.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Hands the training loop its state at a resume."""
        if not runner._resume:
            return
        if hasattr(runner._train_loop, "load_state"):
            runner._train_loop.load_state(checkpoint["meta"])
        self.gradients = checkpoint.get(GRADIENTS)
        self.batches = checkpoint["meta"].get(BATCHES, {})
        if not checkpoint["meta"].get("is_interrupted"):
            self.saved_iter = checkpoint["meta"]["iter"]

    def before_train(self, runner: Runner) -> None:
        """Takes up where the run that is resumed was killed, also while it deleted files."""
        super().before_train(runner)
        known = runner.message_hub.runtime_info
        if "last_ckpt" in known:
            self.last_ckpt = self.here(known["last_ckpt"])
        if self.save_best:
            self._set_best_paths([path and self.here(path) for path in self._best_paths()])
            self._forget_other_best(runner)
        if runner._resume and runner._load_from is None and self.is_local:
            for step in known.get(OUTDATED, ()):
                self._remove(self.here(self.filename_tmpl.format(step)))
            self.replaced = [self.here(name) for name in known.get(REPLACED, ())]
            if self.save_best:
                self._remove_replaced_best(runner)
            self.later = self._list_later_best(runner)
        set_batch_counts(runner, self.batches)
        if self.gradients is not None:
            set_gradients(runner, self.gradients)
            self.gradients = None

    def here(self, path: str) -> str:
        """The path in the folder of today; it may have been moved since it was noted."""
        return self.file_backend.join_path(self.out_dir, osp.basename(path))

    def _list_later_best(self, runner: Runner) -> list[str]:
        """Finds best checkpoints of steps that the resumed run has yet to do again."""
        done = runner.epoch if self.by_epoch else runner.iter
        number = re.escape(self.filename_tmpl).replace(r"\{\}", r"(\d+)")
        found = []
        for path in Path(self.out_dir).glob("best_*"):
            match = re.fullmatch(rf"best_.+_{number}", path.name)
            if match and int(match[1]) > done:
                found.append(str(path))
        return found

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds gradients that wait for further batches.

        Raises:
            CheckpointError: Weights, or what the optimizer keeps, are not finite.
        """
        parts = ("state_dict", "ema_state_dict", "optimizer")
        state = {name: checkpoint[name] for name in parts if name in checkpoint}
        bad = list_non_finite(state)
        if is_sharded(runner):  # and each process has looked at its own part
            bad = sorted({name for part in all_gather_object(bad) for name in part})
        if bad:
            raise CheckpointError(
                f"nothing is saved after step {runner.iter}: NaN or infinite values in "
                f"{list_names(bad)}; the last good checkpoint is {self.last_ckpt}"
            )
        if self.gradients:
            checkpoint[GRADIENTS] = self.gradients

    def _save(self, runner: Runner, filename: str, meta: dict) -> None:
        """Saves all that a run needs to go on."""
        loop = runner.train_loop
        if hasattr(loop, "state"):
            meta.update(loop.state(meta["epoch"], meta["iter"]))
        if batches := count_batches(runner):
            meta[BATCHES] = batches
        share_buffers(runner)
        self.gradients = gather_gradients(runner)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.gradients = None
        self.saved_iter = meta["iter"]
        if self.is_writer:
            path = self.file_backend.join_path(self.out_dir, filename)
            write_atomically(Path(runner.work_dir, POINTER_NAME), path.encode())

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Saves checkpoint number `step`, then lets go of those beyond `max_keep_ckpts`."""
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            steps = [*self.keep_ckpt_ids, step]
            outdated, kept = steps[: -self.max_keep_ckpts], steps[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info("keep_ckpt_ids", kept)
        runner.message_hub.update_info(OUTDATED, outdated)
        filename = self._name(self.filename_tmpl.format(step))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        self._save(runner, filename, meta)
        if self.is_writer:
            for old_step in outdated:
                self._remove(self.here(self.filename_tmpl.format(old_step)))
            self._remove(self.here(INTERRUPTED))

    def save_interrupted(self, runner: Runner) -> str:
        """Saves between two checkpoints, for a resume alone; all processes must call it.

        Returns:
            The file, which the next checkpoint replaces; the newest where that has the same step.
        """
        if self.saved_iter != runner.iter or self.last_ckpt is None:
            meta = {"epoch": runner.epoch, "iter": runner.iter, "is_interrupted": True}
            self._save(runner, self._name(INTERRUPTED), meta)
            barrier()  # a process that ends early has the others ended
            return self.here(self._name(INTERRUPTED))
        barrier()
        return self.last_ckpt

    def after_train(self, runner: Runner) -> None:
        """Deletes what only a resume would have needed, and makes a file of the newest folder."""
        folder = self.last_ckpt
        if folder is not None and self.is_local and osp.isdir(folder):
            self.last_ckpt = folder + FILE_SUFFIX
            if self.is_writer:
                make_file(folder, self.last_ckpt)
        super().after_train(runner)
        if not (self.is_local and self.is_writer):
            return
        had_interrupted = self._remove(self.here(INTERRUPTED))
        pointer = Path(runner.work_dir, POINTER_NAME)
        if self.last_ckpt is None and had_interrupted:
            pointer.unlink(missing_ok=True)
        elif self.last_ckpt is not None and (had_interrupted or folder != self.last_ckpt):
            write_atomically(pointer, self.last_ckpt.encode())
        if folder is not None and folder != self.last_ckpt:
            self._remove(folder)

    def after_val_iter(self, runner: Runner, batch_idx: int, **_: Any) -> None:
        """Lets a signal end the validation."""
        if hasattr(runner._train_loop, "stop_validation_if_asked"):
            runner._train_loop.stop_validation_if_asked(batch_idx)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Saves a new best checkpoint beside the one it replaces.

        Raises:
            ValueError: A metric named by `save_best` was not measured.
        """
        if self.save_best and self.key_indicators == ["auto"]:
            self._choose_metric(runner, metrics)
        if not self.save_best:
            return
        self._forget_other_best(runner)
        for key in self.key_indicators:
            if key not in metrics:
                raise ValueError(
                    f"CheckpointHook has save_best={key!r}, but the evaluators measured only "
                    f"{sorted(metrics)}; name one of these"
                )
        # mmengine deletes the best checkpoint it knows of before it writes the next one, so it is
        # kept from knowing until the next one is there. It also saves anew for the resume, which
        # has to wait for what other hooks do after a validation.
        previous, last = self._best_paths(), self.last_ckpt
        self._set_best_paths([None] * len(previous))
        self.last_ckpt = None
        super()._save_best_checkpoint(runner, metrics)
        self.last_ckpt = last
        written = self._best_paths()
        self._set_best_paths([new or old for new, old in zip(written, previous, strict=True)])
        self.is_best_new = any(written)
        best = self._best_paths()
        self.replaced += [path for path in previous if path and path not in best]

    def _forget_other_best(self, runner: Runner) -> None:
        """Forgets a best score of another metric, by which a run that is resumed went."""
        own = [self.key_indicators[0], self.rules[0]]
        if len(self.key_indicators) > 1 or own[0] == "auto":
            return
        known = runner.message_hub.runtime_info
        if known.get(BEST_METRIC, own) != own:
            known.pop("best_score", None)
            known.pop("best_ckpt", None)
            self._set_best_paths([None])
        runner.message_hub.update_info(BEST_METRIC, own)

    def after_val(self, runner: Runner) -> None:
        """Saves the outcome of a validation for the resume, then deletes earlier best ones."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        is_saved = hasattr(runner.train_loop, "state") and self.saved_iter == runner.iter
        names = [osp.basename(path) for path in self.replaced]
        runner.message_hub.update_info(REPLACED, names)
        if self.last_ckpt is not None and (self.is_best_new or is_saved):
            step = runner.epoch if self.by_epoch else runner.iter
            meta = {"epoch": runner.epoch, "iter": runner.iter}
            self._save_checkpoint_with_step(runner, step, meta)
        self.is_best_new = False
        if self.save_best:
            self._remove_replaced_best(runner)

    def _remove_replaced_best(self, runner: Runner) -> None:
        """Deletes what is no best checkpoint any more, where the one of each metric is there."""
        best = self._best_paths()
        if not all(path and self.file_backend.exists(path) for path in best):
            return
        for path in (*self.replaced, *self.later):
            if self.is_writer and path not in best and self.file_backend.exists(path):
                self._remove(path)
                runner.logger.info(f"The previous best checkpoint {path} is removed.")
        self.replaced, self.later = [], []

    def _choose_metric(self, runner: Runner, metrics: dict) -> None:
        """Chooses what the best checkpoint goes by, where that is left to us."""
        asked = self.rules
        for name in by_importance(metrics):
            try:
                self._init_rule(asked, [name])
            except ValueError:  # its name does not say whether more is better
                continue
            return
        self.save_best = None
        runner.logger.warning(
            f"No best checkpoint is kept: none of {sorted(metrics)} is known to be better the "
            "more or the less; name one in save_best of the checkpoint hook, and its rule"
        )

    def _best_paths(self) -> list[str | None]:
        """The best checkpoint of each metric of `save_best`; mmengine keeps one or many."""
        if len(self.key_indicators) == 1:
            return [self.best_ckpt_path]
        return [self.best_ckpt_path_dict[key] for key in self.key_indicators]

    def _set_best_paths(self, paths: list[str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths[0]
        else:
            self.best_ckpt_path_dict = dict(zip(self.key_indicators, paths, strict=True))

    def _name(self, filename: str) -> str:
        """What a checkpoint is called, a folder or a file."""
        return filename.removesuffix(FILE_SUFFIX) if self.has_folders else filename

    def _remove(self, path: str) -> bool:
        """Deletes a checkpoint, a file or the folder of its name; says whether there was one."""
        paths = {path, path.removesuffix(FILE_SUFFIX)}
        files, folders = filter(self.file_backend.isfile, paths), filter(osp.isdir, paths)
        removed = [self.file_backend.remove(file) for file in files]
        return bool(removed + [self.file_backend.rmtree(folder) for folder in folders])
