"""Rules of advice: each speaks from its bound on, and none of what was not measured."""

import pytest

from swin_mm.benchmark.profile_advice import LARGEST, NOT_PARTS, RULES, advise

PARTS = dict(
    data=0.01, transfer=0.01, preprocess=0.01, backbone=0.3, neck=0.02, other=0.0, optimizer=0.05
)
QUIET = {**PARTS, "backward": 0.6, "gpu idle": 0.02, "waits": 10, "launches": 1000}


def test_a_good_step_needs_no_advice():
    assert advise(QUIET) == [f"backward takes the most time, 60%: {LARGEST['backward']}."]
    assert advise({**QUIET, "gpu idle": None, "waits": None, "launches": None}) == advise(QUIET)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.measure)
def test_every_rule_speaks_from_its_bound_on(rule):
    below = rule.bound - (1 if rule.bound > 1 else 0.001)
    assert advise({**QUIET, rule.measure: below}) == advise(QUIET)
    (_, advice) = advise({**QUIET, rule.measure: rule.bound})
    shown = f"{rule.bound:.0f}" if rule.measure in ("waits", "launches") else f"{rule.bound:.0%}"
    assert shown in advice and "{" not in advice


def test_rules_look_at_what_is_measured():
    assert {rule.measure for rule in RULES} <= {*QUIET, *NOT_PARTS}
    for rule in RULES:
        # Measures that are shares have bounds that are.
        assert (rule.bound > 1) == (rule.measure in ("waits", "launches"))


@pytest.mark.parametrize(
    ("largest", "hint"),
    [("backbone", ": `swin-mm benchmark"), ("roi_head", "."), ("data", ": the")],
)
def test_the_largest_part_is_named(largest, hint):
    first = advise({**QUIET, largest: 0.7})[0]
    assert first.startswith(f"{largest} takes the most time, 70%{hint}")
