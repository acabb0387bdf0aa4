"""Takes times of several candidates in one run, round by round.

A round lets each candidate run for a moment; the next round begins with another one. So drift of
clocks and temperature, and what else the machine does, meet all of them alike, and a ratio is the
median of the ratios within rounds.
"""

import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from swin_mm.garbage import no_collection

WARM_UP_PASSES = 3
MIN_ROUND_SECONDS = (
    0.1  # a round repeats steps until it is as long, so that the clock's grain is small
)

Key = TypeVar("Key")
Clock = Callable[[], float]


class Runner(NamedTuple):
    """Something to measure.

    Attributes:
        run: Does one step on the inputs of an index.
        num_inputs: Inputs that steps take in turn; one pass is a step on each.
        synchronize: Waits until the device has done what it was given.
    """

    run: Callable[[int], object]
    num_inputs: int
    synchronize: Callable[[], None]

    def run_passes(self, passes: int, clock: Clock) -> float:
        """Seconds of a step, the mean over passes, with everything done at the end."""
        self.synchronize()
        start = clock()
        for _ in range(passes):
            for i in range(self.num_inputs):
                self.run(i)
        self.synchronize()
        return (clock() - start) / (passes * self.num_inputs)


class Quantiles(NamedTuple):
    """Median, and what a fifth of the rounds were below and above."""

    median: float
    low: float
    high: float


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What waits for the device."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def warm_up(runner: Runner, clock: Clock = time.perf_counter) -> int:
    """Runs until caches, compilation and allocators have settled.

    Returns:
        Passes that a round takes.
    """
    for _ in range(WARM_UP_PASSES - 1):
        runner.run_passes(1, clock)
    seconds = runner.run_passes(1, clock) * runner.num_inputs
    return max(1, math.ceil(MIN_ROUND_SECONDS / max(seconds, 1e-9)))


def measure(
    runners: Mapping[Key, Runner],
    passes: Mapping[Key, int],
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    on_step: Callable[[], None] = lambda: None,
    on_error: Callable[[Key, Exception], None],
) -> dict[Key, list[float]]:
    """Measures all candidates, alternating.

    A candidate that fails leaves the run; the others go on.

    Args:
        runners: The candidates, warmed up.
        passes: Passes of each in a round.
        rounds: Rounds that count. One more before them does not.
        clock: Gives seconds.
        on_step: Called after each candidate of each round.
        on_error: Called with a candidate that fails, and its error.

    Returns:
        Seconds of a step, for each candidate that did not fail one for each round.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in runners}
    with no_collection():
        for turn in range(rounds + 1):
            keys = list(seconds)
            first = turn % len(keys) if keys else 0
            for key in keys[first:] + keys[:first]:
                try:
                    taken = runners[key].run_passes(passes[key], clock)
                except (
                    Exception
                ) as error:  # any library may fail in any way, out of memory above all
                    del seconds[key]
                    on_error(key, error)
                else:
                    if turn > 0:
                        seconds[key].append(taken)
                on_step()
            gc.collect()
    return seconds


def quantiles(values: list[float]) -> Quantiles:
    """Median with the quantiles 0.2 and 0.8, interpolated."""
    low, median, high = (float(q) for q in np.quantile(values, (0.2, 0.5, 0.8)))
    return Quantiles(median, low, high)


def paired_ratio(values: list[float], others: list[float]) -> float:
    """Median over rounds of `values / others`."""
    return float(np.median(np.divide(values, others)))
