"""Times several candidates in one run, round by round.

In a round each candidate runs for a moment, and each round begins with another one. So drift of
clocks and temperature, and whatever else the machine does, affect all candidates alike; a ratio is
the median of the ratios within rounds. The clock is `torch.utils.benchmark`'s, which waits for the
GPU. Its `Timer` is not used for steps: it repeats two of them before each time that it takes.
"""

import gc
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from torch.utils import benchmark

from swin_mm.garbage import no_collection

WARM_UP_PASSES = 3
MIN_ROUND_SECONDS = 0.1  # shorter steps are repeated, so that the clock's resolution is fine enough

Key = TypeVar("Key")
Clock = Callable[[], float]
Step = Callable[[int], object]  # runs on the input of an index


def time_passes(step: Step, num_inputs: int, passes: int, clock: Clock) -> float:
    """Seconds of a step: the mean over passes, each of which takes every input once."""
    start = clock()
    for _ in range(passes):
        for i in range(num_inputs):
            step(i)
    return (clock() - start) / (passes * num_inputs)


def warm_up(step: Step, num_inputs: int, clock: Clock = benchmark.timer) -> int:
    """Runs a few passes, and returns how many a round needs."""
    for _ in range(WARM_UP_PASSES - 1):
        time_passes(step, num_inputs, 1, clock)
    seconds = time_passes(step, num_inputs, 1, clock) * num_inputs
    return max(1, math.ceil(MIN_ROUND_SECONDS / max(seconds, 1e-9)))


def measure(
    steps: Mapping[Key, Step],
    passes: Mapping[Key, int],
    num_inputs: int,
    rounds: int,
    *,
    on_error: Callable[[Key, Exception], None],
    on_turn: Callable[[], None] = lambda: None,
    clock: Clock = benchmark.timer,
) -> dict[Key, list[float]]:
    """Measures all candidates, alternating. One that fails leaves the run; the others go on.

    Candidates are warmed up, and take `passes` passes over the inputs in a round. One round more
    than `rounds` comes first and does not count. `on_turn` is called after each candidate of each
    round.

    Returns:
        Seconds of a step for each round, for each candidate that did not fail.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in steps}
    with no_collection():
        for turn in range(rounds + 1):
            keys = list(seconds)
            first = turn % len(keys) if keys else 0
            for key in keys[first:] + keys[:first]:
                try:
                    taken = time_passes(steps[key], num_inputs, passes[key], clock)
                except Exception as error:  # any library may fail in any way, e.g. out of memory
                    del seconds[key]
                    on_error(key, error)
                else:
                    if turn > 0:
                        seconds[key].append(taken)
                on_turn()
            gc.collect()
    return seconds


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """The quantiles 0.2, 0.5 and 0.8, interpolated."""
    low, median, high = (float(q) for q in np.quantile(values, (0.2, 0.5, 0.8)))
    return low, median, high


def paired_ratio(values: list[float], others: list[float]) -> float:
    """Median over rounds of `values / others`."""
    return float(np.median(np.divide(values, others)))
