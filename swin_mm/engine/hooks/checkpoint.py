"""Checkpoints that survive `kill -9` at any moment."""

from collections import deque
from collections.abc import Iterable
from os import path as osp
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import BaseLoop, Runner

from swin_mm.engine.checkpoint_files import (
    ATOMIC_BACKEND,
    POINTER_NAME,
    newest_checkpoint,
    remove_partial_files,
    write_atomically,
)
from swin_mm.registry import HOOKS

# What a task is judged by, whatever evaluator measures it: those of single classes, or an accuracy
# of pixels, may come before it.
MAIN_METRICS = ("bbox_mAP", "segm_mAP", "mAP", "bbox_AP", "segm_AP", "AP", "PQ")
MAIN_METRICS += ("mIoU", "mDice", "mFscore")


def by_importance(metrics: Iterable[str]) -> list[str]:
    """Names of metrics, those of whole tasks first and else in their order."""
    return sorted(metrics, key=lambda name: name.rpartition("/")[2] not in MAIN_METRICS)


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's checkpoint hook, with the same arguments, that never leaves less than it found.

    A checkpoint appears under its name only when it is whole, and an older one is deleted only when
    the newer one is there; mmengine deletes first and writes in place. Before an automatic resume
    it makes `last_checkpoint` name the newest whole checkpoint, so that training resumes whatever
    state the folder was left in, also when mmdet's or mmseg's own tool starts it.

    `save_best='auto'` is the first of `MAIN_METRICS` that is measured, or else the first metric
    whose name says whether more of it is better; where none does, no best checkpoint is kept, and
    the log says so.

    Remote storage (`backend_args`, `file_client_args`, an `out_dir` with a scheme) is used as
    mmengine would.
    """

    # The last are of panoptic segmentation, of LVIS and of mmseg's IoUMetric.
    _default_greater_keys = [*MMEngineCheckpointHook._default_greater_keys, "PQ", "AP", "Fscore"]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        is_remote = self.file_client_args or self.backend_args or "://" in str(self.out_dir or "")
        if not is_remote:
            self.backend_args = {"backend": ATOMIC_BACKEND}
        self.is_local = not is_remote

    def before_run(self, runner: Runner) -> None:
        """Tidies the folder and mends `last_checkpoint`; the runner reads it right after this."""
        is_training = isinstance(runner._train_loop, BaseLoop)
        if not (is_training and self.is_local):
            return
        if is_main_process():
            for path in remove_partial_files(self._folder(runner)):
                runner.logger.info(f"Removed {path}, which a killed run left unfinished.")
            if runner._resume and runner._load_from is None:
                self._mend_pointer(runner)
        barrier()

    def _folder(self, runner: Runner) -> Path:
        """The folder of the checkpoints, as `before_train` will compute it."""
        if self.out_dir is None or self.out_dir == runner.work_dir:
            return Path(runner.work_dir)
        return Path(self.out_dir, osp.basename(runner.work_dir.rstrip(osp.sep)))

    def _mend_pointer(self, runner: Runner) -> None:
        pointer = Path(runner.work_dir, POINTER_NAME)
        named = pointer.read_text().strip() if pointer.is_file() else None
        newest = newest_checkpoint(self._folder(runner), self.filename_tmpl, pointer)
        if newest is None:
            pointer.unlink(missing_ok=True)
            runner.logger.warning(
                f"No whole checkpoint in {self._folder(runner)}: training starts at the beginning."
            )
        elif str(newest) != named:
            runner.logger.warning(
                f"{POINTER_NAME} named {named}, but the newest whole checkpoint is {newest}."
            )
            write_atomically(pointer, str(newest).encode())

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Saves checkpoint number `step`, then lets go of those beyond `max_keep_ckpts`."""
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            steps = [*self.keep_ckpt_ids, step]
            outdated, kept = steps[: -self.max_keep_ckpts], steps[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info("keep_ckpt_ids", kept)

        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
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
        if not is_main_process():
            return
        write_atomically(Path(runner.work_dir, POINTER_NAME), self.last_ckpt.encode())
        for old_step in outdated:
            old_name = self.filename_tmpl.format(old_step)
            self._remove(self.file_backend.join_path(self.out_dir, old_name))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Saves a new best checkpoint, then deletes the one it replaces.

        Raises:
            ValueError: A metric named by `save_best` was not measured.
        """
        if self.save_best and self.key_indicators == ["auto"]:
            self._choose_metric(runner, metrics)
        if not self.save_best:
            return
        for key in self.key_indicators:
            if key not in metrics:
                raise ValueError(
                    f"CheckpointHook has save_best={key!r}, but the evaluators measured only "
                    f"{sorted(metrics)}; name one of these"
                )
        # mmengine deletes the best checkpoint it knows of before it writes the next one, so it is
        # kept from knowing until the next one is there.
        previous = self._best_paths()
        self._set_best_paths([None] * len(previous))
        super()._save_best_checkpoint(runner, metrics)
        written = self._best_paths()
        self._set_best_paths([new or old for new, old in zip(written, previous, strict=True)])
        if not is_main_process():
            return
        for new, old in zip(written, previous, strict=True):
            if new and old and new != old:
                self._remove(old)
                runner.logger.info(f"The previous best checkpoint {old} is removed.")

    def _choose_metric(self, runner: Runner, metrics: dict) -> None:
        """Chooses what the best checkpoint goes by, where that is left to us."""
        asked = self.rules
        for name in by_importance(metrics):
            try:
                self._init_rule(asked, [name])
            except ValueError:  # nothing tells whether more of it is better
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

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed saves a folder
            self.file_backend.rmtree(path)
