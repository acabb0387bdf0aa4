"""Averages in one pass: bit for bit what mmengine's class makes of the same weights."""

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage as StockAverage
from mmengine.registry import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import swin_mm  # noqa: F401


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def change(model, step):
    torch.manual_seed(step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    model(torch.randn(8, 4))  # batch norm's statistics, and its count


@pytest.mark.parametrize(
    "settings",
    [
        dict(momentum=0.1),
        dict(momentum=0.3, interval=2),
        dict(momentum=0.6, update_buffers=True),
        dict(momentum=0.1, device=torch.device("cpu")),
    ],
    ids=["plain", "every second", "buffers too", "on a device"],
)
def test_averages_are_mmengines(settings):
    model = make_model()
    ours = MODELS.build(dict(type="swin_mm.ExponentialMovingAverage", model=model, **settings))
    theirs = StockAverage(model, **settings)
    for step in range(6):
        change(model, step)
        ours.update_parameters(model)
        theirs.update_parameters(model)
        found, expected = ours.state_dict(), theirs.state_dict()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value), (step, name)
    assert not torch.equal(ours.module[0].weight, model[0].weight)


class Launches(TorchDispatchMode):
    """Lists what is called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_one_pass_for_any_number_of_weights():
    counts = []
    for size in (2, 20):
        model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(size)))
        average = MODELS.build(dict(type="swin_mm.ExponentialMovingAverage", model=model))
        average.update_parameters(model)
        with Launches() as launches:
            average.update_parameters(model)
        names = [name for name in launches.names if name != "detach"]
        assert names.count("_foreach_lerp_") == 1
        counts.append(len(names))
    assert counts[0] == counts[1]


def test_states_are_interchangeable():
    model = make_model()
    ours = MODELS.build(dict(type="swin_mm.ExponentialMovingAverage", model=model, momentum=0.2))
    theirs = StockAverage(make_model(), momentum=0.2)
    for step in range(3):
        change(model, step)
        ours.update_parameters(model)
    theirs.load_state_dict(ours.state_dict())
    change(model, 3)
    ours.update_parameters(model)
    theirs.update_parameters(model)
    assert torch.equal(ours.module[2].weight, theirs.module[2].weight)
    assert theirs.steps == 4


def test_the_hook_of_mmengine_takes_it():
    hook = EMAHook(ema_type="swin_mm.ExponentialMovingAverage", momentum=0.25)

    class Runner:
        model = make_model()

    hook.before_run(Runner)
    assert type(hook.ema_model).__module__ == "swin_mm.models.averaged_model"
    assert hook.ema_model.momentum == 0.25
