"""Times, quantiles and the order of candidates, on a clock that moves only when steps are run."""

import gc
import time

import pytest

from swin_mm.benchmark.measure import measure, paired_ratio, quantiles, time_passes, warm_up


class FakeDevice:
    """A device whose clock waits for queued work, as that of a GPU does."""

    def __init__(self):
        self.now = 0.0
        self.queued = 0.0
        self.log = []

    def clock(self):
        self.now += self.queued
        self.queued = 0.0
        return self.now

    def step(self, name, seconds, fails_at=None):
        """A step whose time depends on the index of its input."""

        def run(index):
            self.log.append((name, index))
            if fails_at is not None and len(self.log) >= fails_at:
                raise MemoryError("no memory left")
            self.queued += seconds[index]

        return run


@pytest.fixture
def device():
    return FakeDevice()


def fail(key, error):
    raise error


def test_time_is_the_mean_over_inputs_and_includes_queued_work(device):
    step = device.step("a", (1.0, 3.0))
    device.queued = 100.0  # from before
    assert time_passes(step, 2, 3, device.clock) == 2.0
    assert device.log == [("a", 0), ("a", 1)] * 3


@pytest.mark.parametrize(
    ("seconds", "passes"), [((1.0, 3.0), 1), ((0.02, 0.03), 2), ((0.001, 0.001), 50)], ids=str
)
def test_warm_up_makes_rounds_long_enough(device, seconds, passes):
    assert warm_up(device.step("a", seconds), 2, device.clock) == passes
    assert len(device.log) == 6


def test_rounds_alternate_and_the_first_does_not_count(device):
    steps = {"a": device.step("a", (1, 1)), "b": device.step("b", (2, 4))}
    turns = []
    seconds = measure(
        steps,
        {"a": 1, "b": 1},
        2,
        3,
        clock=device.clock,
        on_turn=lambda: turns.append(1),
        on_error=fail,
    )
    assert seconds == {"a": [1.0] * 3, "b": [3.0] * 3}
    assert [name for name, index in device.log if index == 0] == list("abbaabba")
    assert len(turns) == 8


def test_a_candidate_that_fails_leaves_and_others_go_on(device):
    steps = {name: device.step(name, (1, 1), 7 if name == "b" else None) for name in "abc"}
    failed = []
    seconds = measure(
        steps,
        dict.fromkeys(steps, 1),
        2,
        2,
        clock=device.clock,
        on_error=lambda key, error: failed.append((key, str(error))),
    )
    assert seconds == {"a": [1.0, 1.0], "c": [1.0, 1.0]}
    assert failed == [("b", "no memory left")]


def test_nothing_to_measure(device):
    assert measure({}, {}, 1, 2, clock=device.clock, on_error=fail) == {}


def test_garbage_is_not_collected_within_a_step(device):
    seen = []
    step = {"a": lambda index: seen.append(gc.isenabled())}
    measure(step, {"a": 1}, 1, 1, clock=device.clock, on_error=fail)
    assert seen == [False, False]
    assert gc.isenabled()


def test_a_known_sleep_by_the_real_clock():
    began = time.perf_counter()
    found = measure({"a": lambda index: time.sleep(0.02)}, {"a": 1}, 1, 3, on_error=fail)
    assert len(found["a"]) == 3 and min(found["a"]) >= 0.02
    assert sum(found["a"]) < time.perf_counter() - began  # in seconds


def test_quantiles():
    # Sorted 1 2 3 4 10: the quantile 0.2 lies at place 0.8, 0.8 at place 3.2.
    assert quantiles([10.0, 2.0, 4.0, 1.0, 3.0]) == pytest.approx((1.8, 3.0, 5.2))
    assert quantiles([7.0]) == (7.0, 7.0, 7.0)


def test_ratio_is_taken_within_rounds():
    # The machine was ten times as slow in the second round, for both.
    assert paired_ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == 2.0
