"""Stochastic depth against mmcv's, and what it leaves out."""

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

from swin_mm.models.layers.stochastic_depth import add_branch


class Branch(nn.Module):
    """A branch that remembers how many samples it has seen."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer, self.seen = nn.LayerNorm(6), nn.Linear(6, 6), []

    def forward(self, x):
        self.seen.append(len(x))
        return self.layer(self.norm(x))


def run(add, branch, drop_path, batch, seed):
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 5, 6, requires_grad=True)
    torch.manual_seed(seed)
    out = add(x, branch, drop_path)
    drawn = torch.rand(1)  # the state in which the generator is left
    grads = torch.autograd.grad(out.square().sum(), [x, *branch.parameters()])
    return [out, drawn, *grads]


def add_by_mmcv(x, branch, drop_path):
    return x + drop_path(branch(x))


@pytest.mark.parametrize("rate", [0.2, 0.6])
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_values_gradients_and_random_numbers_are_mmcvs(batch, rate):
    counts = set()
    for seed in range(8):
        branch, drop_path = Branch(), DropPath(rate).train()
        found = run(add_branch, branch, drop_path, batch, seed)
        wanted = run(add_by_mmcv, branch, drop_path, batch, seed)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs)
        assert branch.seen[1] == batch
        counts.add(branch.seen[0])
    assert len(counts) > 1  # some samples were left out, or the test shows nothing


def test_where_all_are_dropped_gradients_are_zero():
    branch = Branch()
    out, _, grad_x, *grads = run(add_branch, branch, DropPath(1 - 1e-6).train(), 3, 0)
    assert branch.seen == [0]
    assert all(grad.abs().sum() == 0 for grad in grads)
    torch.testing.assert_close(grad_x, 2 * out)  # which is x


def test_nothing_is_drawn_in_evaluation():
    branch = Branch()
    found = run(add_branch, branch, DropPath(0.5).eval(), 4, 0)
    for ours, theirs in zip(found, run(add_by_mmcv, branch, nn.Identity(), 4, 0), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert branch.seen == [4, 4]


class Other(DropPath):
    def forward(self, x):
        return 0 * x


def test_whoever_must_be_called_is():
    branch, x = Branch(), torch.randn(4, 6)
    torch.testing.assert_close(add_branch(x, branch, Other(0.5).train()), x)
    seen, hooked = [], DropPath(0.5).train()
    hooked.register_forward_hook(lambda *given: seen.append(1))
    add_branch(x, branch, hooked)
    with torch.autocast("cpu", torch.bfloat16):
        add_branch(x, branch, DropPath(0.5).train())
    assert seen == [1] and branch.seen == [4, 4, 4]
