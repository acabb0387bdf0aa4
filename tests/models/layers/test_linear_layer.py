"""Linear layers of a block: what stands in their place or hangs on them keeps its effect."""

import copy

import pytest
import torch
from torch import nn

from swin_mm.models.layers import SwinBlock, WindowAttention
from swin_mm.models.layers.linear import apply_linear


class Doubled(nn.Linear):
    """A layer that is more than its weight and bias, as LoRA's are."""

    def forward(self, x):
        return 2 * super().forward(x)


def layer_and_input(cls=nn.Linear):
    torch.manual_seed(0)
    return cls(12, 7), torch.randn(2, 5, 3, 12)


@pytest.mark.parametrize("act", [None, nn.GELU(), nn.GELU("tanh"), nn.ReLU()], ids=str)
@pytest.mark.parametrize("with_residual", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("cls", [nn.Linear, Doubled])
@torch.no_grad()
def test_values(act, with_residual, cls):
    layer, x = layer_and_input(cls)
    residual = torch.randn(2, 5, 3, 7) if with_residual else None
    wanted = layer(x) if act is None else act(layer(x))
    if with_residual:
        wanted = wanted + residual
    torch.testing.assert_close(apply_linear(layer, x, act=act, residual=residual), wanted)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@torch.no_grad()
def test_hooks_are_called(kind):
    layer, x = layer_and_input()
    calls = []
    getattr(layer, kind)(lambda *arguments: calls.append(arguments) and None)
    torch.testing.assert_close(apply_linear(layer, x), layer(x))
    assert len(calls) == 2


@pytest.mark.parametrize("with_hook", [False, True])
@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(12), nn.LayerNorm(12, elementwise_affine=False), nn.Identity()], ids=str
)
@torch.no_grad()
def test_a_norm_before(norm, with_hook):
    layer, x = layer_and_input()
    norm, calls = copy.deepcopy(norm), []
    if with_hook:
        norm.register_forward_hook(lambda module, inputs, out: calls.append(1) or 3 * out)
    wanted = layer(norm(x))
    torch.testing.assert_close(apply_linear(layer, x, norm=norm), wanted)
    assert len(calls) == 2 * with_hook


def test_a_backward_hook_of_a_norm_is_called():
    layer, x = layer_and_input()
    norm, calls = nn.LayerNorm(12), []
    norm.register_full_backward_hook(lambda *arguments: calls.append(1))
    apply_linear(layer, x.requires_grad_(), norm=norm).sum().backward()
    assert calls


def test_a_hook_on_all_modules_sees_layers():
    layer, x = layer_and_input()
    norm, seen = nn.LayerNorm(12), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    try:
        apply_linear(layer, x, norm=norm)
    finally:
        handle.remove()
    assert seen == [norm, layer]


@torch.no_grad()
def test_an_activation_with_a_hook_is_called():
    layer, x = layer_and_input()
    act = nn.GELU()
    act.register_forward_hook(lambda module, inputs, out: out + 1)
    torch.testing.assert_close(apply_linear(layer, x, act=act), act(layer(x)))


@torch.no_grad()
def test_dropout_is_applied_where_it_is_active():
    layer, x = layer_and_input()
    drop = nn.Dropout(0.5)
    torch.manual_seed(1)
    wanted = drop(layer(x))
    torch.manual_seed(1)
    assert torch.equal(apply_linear(layer, x, drop=drop), wanted)
    assert (wanted == 0).any()
    torch.testing.assert_close(apply_linear(layer, x, drop=drop.eval()), layer(x))


def block(**arguments) -> SwinBlock:
    torch.manual_seed(0)
    attn = WindowAttention(24, 3, (4, 4), is_shifted=True, proj_drop_rate=0.3)
    cfg = dict(drop_rate=0.3, drop_path_rate=0.5, act_cfg=dict(type="GELU"))
    return SwinBlock(attn, 2.0, norm_cfg=dict(type="LN"), **{**cfg, **arguments})


def test_a_block_predicts_what_it_computes_for_gradients():
    """With a gradient wanted, each operator is PyTorch's own."""
    model, x = block().eval(), torch.randn(2, 9, 7, 24)
    with torch.no_grad():
        predicted = model(x)
    torch.testing.assert_close(predicted, model(x))


def test_drop_path_drops_the_whole_branch():
    model = block(drop_path_rate=0.999999).train()
    x = torch.randn(4, 9, 7, 24)
    assert torch.equal(model(x), x)


def test_dropout_that_stays_on_in_evaluation():
    """Monte Carlo dropout: `eval`, then dropout back on."""
    model, x = block().eval(), torch.randn(2, 9, 7, 24)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.mlp.drop.train()
        assert not torch.equal(model(x), model(x))
