"""Resumes step-based training at the right sample without loading all the samples before it."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from swin_mm.registry import HOOKS


@HOOKS.register_module()
class FastForwardHook(Hook):
    """Skips indices where mmengine 0.10 skips batches.

    After a resume at step n mmengine's loop first loads n batches and throws them away, which takes
    hours late in a long schedule. Their indices alone are enough to go on with the same order of
    samples as the run that is resumed. Other samplers than `InfiniteSampler` are left to mmengine,
    and `swin_mm.IterBasedTrainLoop` needs no such help.
    """

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        loader = loop.dataloader
        is_mmengines = isinstance(loop, IterBasedTrainLoop) and not hasattr(loop, "skipped_batches")
        if not is_mmengines or loop.iter == 0:
            return
        sampler = loader.sampler
        if type(sampler) is not InfiniteSampler or loader.batch_size is None:
            return
        if not runner._randomness_cfg.get("diff_rank_seed", False):
            # The seed of the run that is resumed; this one's loader was built before it was known.
            sampler.seed = runner.seed
        # What the loader has fetched so far came from the beginning.
        sampler.indices = islice(sampler._indices_of_rank(), loop.iter * loader.batch_size, None)
        loop.dataloader_iterator = _Skipping(_InfiniteDataloaderIterator(loader), loop.iter)
        runner.logger.info(f"Skipped the samples of {loop.iter} steps without loading them.")


class _Skipping:
    """Yields None for the first `skip` batches, then those of `batches`."""

    def __init__(self, batches: Iterator[Any], skip: int) -> None:
        self.batches = batches
        self.skip = skip

    def __next__(self) -> Any:
        if self.skip:
            self.skip -= 1
            return None
        return next(self.batches)
