"""Clipping gradients: numbers of mmengine's wrapper, and none of them read before it is logged."""

import pytest
import torch
from host_reads import HostReads
from mmengine.logging import MessageHub
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

import swin_mm  # noqa: F401

CLIPS = {
    "norm": dict(max_norm=0.5, norm_type=2),
    "infinite norm": dict(max_norm=0.1, norm_type=float("inf")),
    "value": dict(type="value", clip_value=0.01),
}


def train(kind, clip, name, steps=4, frozen=False):
    """Weights after some steps, the hub, and reads of the steps after the first."""
    hub = MessageHub.get_instance(name)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    model[0].requires_grad_(not frozen)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapper = OPTIM_WRAPPERS.build(dict(type=kind, optimizer=optimizer, clip_grad=dict(clip)))
    for step in range(steps):
        with HostReads() as reads:
            wrapper.update_params(model(torch.randn(5, 4)).square().sum())
        if step == 1:
            counted = reads.count
    return torch.cat([p.flatten() for p in model.parameters()]), hub, counted


@pytest.mark.parametrize("kind", ["OptimWrapper", "AmpOptimWrapper"])
@pytest.mark.parametrize("frozen", [False, True], ids=["all", "partly frozen"])
@pytest.mark.parametrize("clip", CLIPS.values(), ids=CLIPS)
def test_clips_as_mmengine_and_logs_the_same_norms(kind, frozen, clip, request):
    name = request.node.name
    ours, our_hub, reads = train(f"swin_mm.{kind}", clip, f"ours {name}", frozen=frozen)
    theirs, hub, their_reads = train("OptimWrapper", clip, f"theirs {name}", frozen=frozen)
    assert torch.equal(ours, theirs)
    assert our_hub.log_scalars.keys() == hub.log_scalars.keys()
    if "max_norm" in clip:
        assert their_reads == 1  # what this is about
        found = our_hub.get_scalar("train/grad_norm").data[0]
        assert found.tolist() == hub.get_scalar("train/grad_norm").data[0].tolist()
        assert len(found) == 4 and found.max() > clip["max_norm"]
    assert reads == 0


def test_without_gradients_there_is_nothing_to_clip():
    hub = MessageHub.get_instance("nothing")
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type="swin_mm.OptimWrapper", optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    )
    wrapper.step()
    assert "train/grad_norm" not in hub.log_scalars
