"""Scalars that wait on the device: whoever reads the hub finds what mmengine would have there."""

import copy
import io

import numpy as np
import pytest
import torch
from host_reads import HostReads
from mmengine.logging import HistoryBuffer, MessageHub

from swin_mm.engine import deferred_log
from swin_mm.engine.deferred_log import add_deferred

STEPS = [{"train/a": float(step), "train/b": 10.0 - step} for step in range(5)]


def tensors(step):
    return {name: torch.tensor(value) for name, value in step.items()}


@pytest.fixture
def hub():
    return MessageHub("deferred")


@pytest.fixture
def filled(hub):
    """A hub with five steps, and one of mmengine's own with the same."""
    plain = MessageHub("plain")
    for step in STEPS:
        add_deferred(hub, tensors(step))
        for name, value in step.items():
            plain.update_scalar(name, value)
    return hub, plain


@pytest.mark.parametrize(
    ("method", "window"), [("mean", 3), ("mean", None), ("min", 2), ("max", None), ("current", ())]
)
def test_statistics_are_mmengines(filled, method, window):
    arguments = () if window == () else (window,)
    for name in ("train/a", "train/b"):
        ours, theirs = (hub.get_scalar(name).statistics(method, *arguments) for hub in filled)
        assert ours == theirs


def test_nothing_is_read_after_the_first_step_until_somebody_asks(hub):
    add_deferred(hub, tensors(STEPS[0]))  # the hub's own way for new keys
    with HostReads() as reads:
        for step in STEPS[1:]:
            add_deferred(hub, tensors(step))
    assert reads.count == 0
    assert len(hub._log_scalars.waiting) == 4
    assert hub.get_scalar("train/b").current() == 6.0
    assert not hub._log_scalars.waiting  # all came with the one that was asked for
    assert hub.get_scalar("train/a").data[0].tolist() == [0, 1, 2, 3, 4]


def test_tensors_may_change_afterwards_and_need_no_gradient(hub):
    value = torch.ones((), requires_grad=True)
    for _ in range(2):
        add_deferred(hub, {"train/a": value * 2})
    (_, waiting) = hub._log_scalars.waiting[0]
    assert not waiting.requires_grad
    buffer = torch.tensor([3.0])
    add_deferred(hub, {"train/a": buffer})
    buffer.zero_()
    assert hub.get_scalar("train/a").data[0].tolist() == [2, 2, 3]


def test_keys_of_other_dtypes_and_of_some_steps_only(hub):
    for step in range(4):
        scalars = {
            "train/a": torch.tensor(step),
            "train/c": torch.tensor([0.1], dtype=torch.float64),
        }
        if step % 2:
            scalars["train/odd"] = torch.tensor(step, dtype=torch.float16)
        add_deferred(hub, scalars)
    add_deferred(hub, {})
    assert hub.get_scalar("train/a").data[0].tolist() == [0, 1, 2, 3]
    assert hub.get_scalar("train/odd").data[0].tolist() == [1, 3]
    assert hub.get_scalar("train/c").data[0].tolist() == [0.1] * 4


def test_plain_updates_keep_their_place_in_the_order(hub):
    for step in STEPS[:2]:
        add_deferred(hub, tensors(step))
    hub.update_scalar("train/a", 7.0, 2)
    add_deferred(hub, tensors(STEPS[2]))
    log, counts = hub.get_scalar("train/a").data
    assert log.tolist() == [0, 1, 7, 2] and counts.tolist() == [1, 1, 2, 1]


def test_history_is_no_longer_than_it_may_be(hub):
    hub._log_scalars["train/a"] = HistoryBuffer([1.0, 2.0], [1, 1], max_length=3)
    for value in (3.0, 4.0):
        add_deferred(hub, {"train/a": torch.tensor(value)})
    found = hub.get_scalar("train/a").data
    assert [values.tolist() for values in found] == [[2, 3, 4], [1, 1, 1]]


def test_a_copy_of_the_hub_has_each_value_once(filled):
    hub, plain = filled
    for found in (copy.deepcopy(hub), copy.copy(hub)):
        for name in ("train/a", "train/b"):
            assert np.array_equal(found.get_scalar(name).data, plain.get_scalar(name).data)


def test_waiting_steps_have_a_bound(hub, monkeypatch):
    monkeypatch.setattr(deferred_log, "MAX_WAITING", 3)
    for step in STEPS:
        add_deferred(hub, tensors(step))
        assert len(hub._log_scalars.waiting) < 3
    assert hub.get_scalar("train/a").data[0].tolist() == [0, 1, 2, 3, 4]


def test_saved_as_mmengines_own(filled):
    hub, plain = filled
    state = hub.state_dict()
    assert all(type(history) is HistoryBuffer for history in state["log_scalars"].values())
    resumed = MessageHub("resumed")
    resumed.load_state_dict(copy.deepcopy(state))
    expected = plain.get_scalar("train/a").data
    for found in (resumed.get_scalar("train/a").data, copy.copy(hub.get_scalar("train/a")).data):
        assert np.array_equal(found, expected)
    file = io.BytesIO()
    torch.save(hub.get_scalar("train/b"), file)
    assert b"swin_mm" not in file.getvalue()
