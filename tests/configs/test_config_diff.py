"""The comparison of configs finds what differs, and holds its list to account."""

import pytest
from config_diff import (
    MISSING,
    Difference,
    assert_differs_only_as_meant,
    find_differences,
    flatten,
    state_defaults,
)

OURS = {"optim": {"lr": 1e-4, "betas": [0.9, 0.999]}, "pipeline": [{"type": "Load"}], "hooks": []}
THEIRS = {
    "optim": {"lr": 2e-4, "betas": (0.9, 0.999)},
    "pipeline": [{"type": "Load"}, {"type": "Flip"}],
    "hooks": (),
}


def test_flatten_names_every_leaf():
    assert flatten(OURS) == {
        "optim.lr": 1e-4,
        "optim.betas.0": 0.9,
        "optim.betas.1": 0.999,
        "pipeline.0.type": "Load",
        "hooks": (),
    }


def test_lists_and_tuples_are_alike():
    assert find_differences(OURS, THEIRS) == {
        "optim.lr": Difference(1e-4, 2e-4),
        "pipeline.1.type": Difference(MISSING, "Flip"),
    }


def test_the_list_covers_all_differences():
    assert_differs_only_as_meant(
        OURS, THEIRS, [("optim.lr", "half the batch"), ("pipeline.1.*", "no flips")]
    )


def test_a_difference_off_the_list_fails():
    with pytest.raises(AssertionError, match=r"pipeline\.1\.type: ours \(absent\), theirs Flip"):
        assert_differs_only_as_meant(OURS, THEIRS, [("optim.lr", "half the batch")])


def test_an_idle_entry_fails():
    meant = [("optim.lr", "half the batch"), ("pipeline.*", "no flips"), ("model.*", "bigger")]
    with pytest.raises(AssertionError, match=r"no such difference:\n  model\.\* \(bigger\)"):
        assert_differs_only_as_meant(OURS, THEIRS, meant)


def test_an_entry_without_a_reason_fails():
    with pytest.raises(AssertionError, match="without a reason"):
        assert_differs_only_as_meant(OURS, THEIRS, [("optim.lr", "smaller"), ("pipeline.*", "")])


def test_defaults_are_stated():
    def function(first, second=2, *, third=3):
        pass

    assert state_defaults({"first": 1, "third": 0}, function) == dict(first=1, second=2, third=0)
