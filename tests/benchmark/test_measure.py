"""Times, quantiles and the order of candidates, on a clock that moves only when steps are run."""

import gc

import pytest

from swin_mm.benchmark.measure import Runner, measure, paired_ratio, quantiles, warm_up


class FakeDevice:
    """A clock, and work that takes time only when it is waited for, as on a GPU."""

    def __init__(self):
        self.now = 0.0
        self.queued = 0.0
        self.log = []

    def clock(self):
        return self.now

    def synchronize(self):
        self.now += self.queued
        self.queued = 0.0

    def runner(self, name, seconds, fails_at=None):
        """Steps on two inputs; `seconds` gives the time of each input."""

        def run(index):
            self.log.append((name, index))
            if fails_at is not None and len(self.log) >= fails_at:
                raise MemoryError("no memory left")
            self.queued += seconds[index]

        return Runner(run, 2, self.synchronize)


@pytest.fixture
def device():
    return FakeDevice()


def fail(key, error):
    raise error


def test_time_is_the_mean_over_sizes_and_waits_for_the_device(device):
    runner = device.runner("a", (1.0, 3.0))
    device.queued = 100.0  # of somebody before
    assert runner.run_passes(3, device.clock) == 2.0
    assert device.log == [("a", 0), ("a", 1)] * 3


@pytest.mark.parametrize(
    ("seconds", "passes"), [((1.0, 3.0), 1), ((0.02, 0.03), 2), ((0.001, 0.001), 50)], ids=str
)
def test_warm_up_makes_rounds_long_enough(device, seconds, passes):
    assert warm_up(device.runner("a", seconds), device.clock) == passes
    assert len(device.log) == 6


def test_rounds_alternate_and_the_first_does_not_count(device):
    runners = {"a": device.runner("a", (1, 1)), "b": device.runner("b", (2, 4))}
    steps = []
    seconds = measure(
        runners,
        {"a": 1, "b": 1},
        3,
        clock=device.clock,
        on_step=lambda: steps.append(1),
        on_error=fail,
    )
    assert seconds == {"a": [1.0] * 3, "b": [3.0] * 3}
    assert [name for name, index in device.log if index == 0] == list("abbaabba")
    assert len(steps) == 8


def test_one_that_fails_leaves_and_others_go_on(device):
    runners = {
        "a": device.runner("a", (1, 1)),
        "b": device.runner("b", (1, 1), fails_at=7),
        "c": device.runner("c", (1, 1)),
    }
    failed = []
    seconds = measure(
        runners,
        dict.fromkeys(runners, 1),
        2,
        clock=device.clock,
        on_error=lambda key, error: failed.append((key, str(error))),
    )
    assert seconds == {"a": [1.0, 1.0], "c": [1.0, 1.0]}
    assert failed == [("b", "no memory left")]


def test_nothing_to_measure(device):
    assert measure({}, {}, 2, clock=device.clock, on_error=fail) == {}


def test_garbage_is_not_collected_within_a_step_and_is_again_afterwards(device):
    seen = []
    runner = Runner(lambda index: seen.append(gc.isenabled()), 1, device.synchronize)
    measure({"a": runner}, {"a": 1}, 1, clock=device.clock, on_error=fail)
    assert seen == [False, False]
    assert gc.isenabled()


def test_quantiles():
    # Sorted 1 2 3 4 10: the quantile 0.2 lies at place 0.8, 0.8 at place 3.2.
    found = quantiles([10.0, 2.0, 4.0, 1.0, 3.0])
    assert found.median == 3.0
    assert found.low == pytest.approx(1.8)
    assert found.high == pytest.approx(5.2)
    assert quantiles([7.0]) == (7.0, 7.0, 7.0)


def test_ratio_is_taken_within_rounds():
    # The machine was ten times as slow in the second round, for both.
    assert paired_ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == 2.0
