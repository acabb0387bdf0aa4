"""The clock of parts, and what of a model's step it is put around."""

import itertools

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn

from swin_mm.benchmark.profile_parts import PartClock, order_parts, watch


def ticking(**kwargs):
    """A clock that goes on by one second each time that somebody looks."""
    return PartClock(clock=itertools.count(100.0).__next__, **kwargs)


def test_a_part_within_another_counts_for_itself_alone():
    clock = ticking()
    with clock.part("outer"):
        with clock.part("inner"):
            pass
        with clock.part("inner"), clock.part("deep"):
            pass
    with clock.part("outer"):
        pass
    # Looks: outer, inner, end, inner, deep, end, end, end; outer, end.
    assert clock.seconds == {"outer": 1 + 1 + 1 + 1, "inner": 1 + 1 + 1, "deep": 1}
    assert list(clock.seconds) == ["outer", "inner", "deep"]


def test_device_is_waited_for_before_every_look():
    events = []
    clock = PartClock(lambda: events.append("wait"), clock=lambda: events.append("look") or 0.0)
    with clock.part("a"), clock.part("b"):
        pass
    assert events == ["wait", "look"] * 4


def test_time_until_an_error_counts_and_the_clock_goes_on():
    clock = ticking()
    with pytest.raises(KeyError), clock.part("a"):
        raise KeyError
    with clock.part("b"):
        pass
    assert clock.seconds == {"a": 1, "b": 1}


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x)

    def loss(self, x):
        return self(x).square().mean()


class Detector(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 2)
        self.head = Head()
        self.others = nn.ModuleList([Head(), Head()])

    def forward(self, inputs, mode="loss"):
        x = self.backbone(inputs)
        losses = [head.loss(x) for head in (self.head, *self.others)]
        return {f"loss_{i}": loss for i, loss in enumerate(losses)}


@pytest.fixture
def detector():
    model = Detector()
    return model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def test_every_part_of_a_step_is_counted(detector):
    model, wrapper = detector
    clock = ticking()
    calls = []
    part = clock.part
    clock.part = lambda name: calls.append(name) or part(name)
    with watch(model, wrapper, clock):
        model.train_step({"inputs": torch.ones(4, 3)}, wrapper)
    assert list(dict.fromkeys(calls)) == [
        *("preprocess", "transfer", "backbone", "head", "others", "backward", "optimizer")
    ]
    assert calls.count("head") == 2  # its loss, which calls it
    assert calls.count("others") == 4
    assert calls.count("optimizer") == 2  # the step, and gradients set to nothing


def test_afterwards_nothing_is_left_and_values_are_the_same(detector):
    model, wrapper = detector
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    expected = model(torch.ones(4, 3))["loss_0"]
    with watch(model, wrapper, PartClock()):
        found = model(torch.ones(4, 3))["loss_0"]
    assert torch.equal(found, expected)
    assert {name: vars(module).keys() for name, module in model.named_modules()} == {
        name: values.keys() for name, values in before.items()
    }
    assert not {"step", "backward", "zero_grad"} & vars(wrapper).keys()


def test_parts_are_in_the_order_of_a_step():
    ended = ["transfer", "preprocess", "data", "neck", "rpn_head", "optimizer", "backward", "other"]
    assert list(order_parts(dict.fromkeys(ended, 1.0))) == [
        *("data", "transfer", "preprocess", "neck", "rpn_head", "other", "backward", "optimizer")
    ]
