"""Random numbers that depend on where training is, not on how it came there.

Before each step every global generator is seeded from the run's seed, the process and the number of
the step, and before each sample from the place of the sample in its batch as well. So nothing has
to be saved: a run that is resumed at a step draws what the undisturbed run draws there, whatever
number of workers loads its data.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.runner import BaseLoop
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

# Steps, samples and validations of one number must not share random numbers.
STEP, SAMPLE, VALIDATION = range(3)


def seed_generators(*key: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's global generators, those of this process's GPU too.

    Different keys, of numbers of any size that are not negative, give independent streams.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(words.tobytes())
    np.random.seed(words)  # noqa: NPY002
    seed = int(words[:2].view(np.uint64)[0]) >> 1
    # torch.manual_seed formats a stack trace each time where CUDA is not in use yet.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized() and not torch.cuda._is_in_bad_fork():
        torch.cuda.manual_seed(seed)


class SeededBatch(list):
    """Indices of the samples of a batch; whoever iterates over them draws each sample's numbers.

    A data loader's worker loads a batch by iterating over its indices, so the generators are seeded
    in the worker, right before each sample is loaded, and any data set will do.
    """

    def __init__(self, indices: list, key: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.key = key

    def __iter__(self) -> Iterator[Any]:
        for place, index in enumerate(super().__iter__()):
            seed_generators(*self.key, place)
            yield index

    def __reduce__(self) -> tuple:
        return SeededBatch, (self[:], self.key)


class ResumableBatches:
    """Wraps the batch sampler of a training loop: seeds samples, and starts where the loop is.

    The loop's `iter` are the steps done, its `skipped_batches` those whose batches are still to be
    skipped.
    """

    def __init__(self, batches: BatchSampler, loop: BaseLoop) -> None:
        self.batches = batches
        self.loop = loop

    def __iter__(self) -> Iterator[SeededBatch]:
        seed, step = self.loop.runner.seed, self.loop.iter
        for batch in self.batches:
            if self.loop.skipped_batches:
                self.loop.skipped_batches -= 1
                continue
            yield SeededBatch(batch, (SAMPLE, seed, get_rank(), step))
            step += 1

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


def make_resumable(loader: DataLoader, loop: BaseLoop) -> None:
    """Has a data loader seed its samples and start where `loop` is, before anything is loaded.

    A loader of an iterable data set, or one without batches, is left as it is.
    """
    batches: Any = loader.batch_sampler
    if batches is not None and not isinstance(loader.dataset, IterableDataset):
        # PyTorch forbids it, since workers could have been started.
        object.__setattr__(loader, "batch_sampler", ResumableBatches(batches, loop))
