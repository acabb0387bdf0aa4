"""What each part of a training step takes, by a clock that stops where one part calls another."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from mmengine.optim import OptimWrapper
from torch import nn
from torch.profiler import record_function

# Parts that every step has, beside those of the model, which are named as the model names them.
DATA, TRANSFER, PREPROCESS = "data", "transfer", "preprocess"
OTHER, BACKWARD, OPTIMIZER = "other", "backward", "optimizer"
# What mmdet's and mmseg's models call of their parts.
CALLS = ("forward", "loss", "loss_and_predict", "predict")


class PartClock:
    """Adds up the time of parts.

    A part that is called within another counts for itself alone, so the parts sum up to the whole.
    Each part has its name in the timeline of `torch.profiler` as well.

    Args:
        synchronize: Waits for the device before the clock is read. Without it the time is that of
            giving a device its work, and what a part has queued is waited for in a later one.
        end: Waits for the device after the last step, whose work is part of the whole.
        clock: Gives seconds.

    Attributes:
        seconds: By part, in the order in which parts end first.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = lambda: None,
        end: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.synchronize = synchronize
        self.end = end
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._mark = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what happens within it for a part."""
        self._charge()
        self._stack.append(name)
        try:
            with record_function(name):
                yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        """Counts the time since the last change for the part that runs."""
        self.synchronize()
        now = self.clock()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mark
        self._mark = now


@contextmanager
def watch(model: nn.Module, optim_wrapper: OptimWrapper, clock: PartClock) -> Iterator[None]:
    """Has the parts of training steps counted within it.

    Args:
        model: A detector or a segmentor; each of its children is a part, and the members of a list
            are one together.
        optim_wrapper: The wrapper of its optimizer.
        clock: What counts.
    """
    with ExitStack() as stack:

        def count(owner: Any, call: str, part: str) -> None:
            if hasattr(owner, call):
                original = getattr(owner, call)

                @wraps(original)
                def counted(*args, **kwargs):
                    with clock.part(part):
                        return original(*args, **kwargs)

                setattr(owner, call, counted)
                stack.callback(delattr, owner, call)

        for name, child in model.named_children():
            if name == "data_preprocessor":
                count(child, "forward", PREPROCESS)
                count(child, "cast_data", TRANSFER)
                continue
            members = list(child) if isinstance(child, nn.ModuleList) else [child]
            for member in members:
                for call in CALLS:
                    count(member, call, name)
        count(optim_wrapper, "backward", BACKWARD)
        count(optim_wrapper, "step", OPTIMIZER)
        count(optim_wrapper, "zero_grad", OPTIMIZER)
        yield


def order_parts(seconds: dict[str, float]) -> dict[str, float]:
    """Sorts parts as they come in a step: those of the model in the middle, as they are."""
    first, last = (DATA, TRANSFER, PREPROCESS), (OTHER, BACKWARD, OPTIMIZER)
    own = [name for name in seconds if name not in first + last]
    return {name: seconds[name] for name in (*first, *own, *last) if name in seconds}
