"""oneDNN's fused linear layers: equal to the formula, and used only where they can run."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from swin_mm.models.layers import SwinBlock, SwinBlockV2, WindowAttention
from swin_mm.models.layers.attention_v2 import CosineWindowAttention
from swin_mm.models.layers.fused import choose
from swin_mm.ops.linear import linear_add, mlp_add, why_not_onednn
from swin_mm.ops.setting import setting_of

SHAPES = [(1, 7), (2, 5, 13, 24), (0, 24), (3, 1, 1, 33)]


def make_layers(channels, hidden=19, bias=True):
    torch.manual_seed(0)
    return nn.Linear(channels, hidden, bias), nn.Linear(hidden, channels, bias)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("with_residual", [True, False], ids=["residual", "alone"])
@torch.no_grad()
def test_values_are_those_of_the_formula(shape, bias, with_residual):
    fc1, fc2 = make_layers(shape[-1], bias=bias)
    x, residual = torch.randn(shape), torch.randn(shape)
    exact1, exact2 = copy.deepcopy(fc1).double(), copy.deepcopy(fc2).double()
    hidden = F.gelu(exact1(x.double()))
    expected = exact2(hidden) + (residual.double() if with_residual else 0)
    found = mlp_add(x, fc1, fc2, residual if with_residual else None)
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    found = linear_add(hidden.float(), fc2, residual)
    torch.testing.assert_close(found, (exact2(hidden) + residual).float(), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_strided_inputs():
    fc1, fc2 = make_layers(24)
    x = torch.randn(2, 13, 5, 24).transpose(1, 2)
    residual = torch.randn(2, 24, 5, 13).permute(0, 2, 3, 1)
    assert not x.is_contiguous() and not residual.is_contiguous()
    expected = fc2(F.gelu(fc1(x))) + residual
    torch.testing.assert_close(mlp_add(x, fc1, fc2, residual), expected)


class Subclass(torch.Tensor):
    """As quantised and distributed tensors are."""


@pytest.mark.parametrize(
    ("context", "change", "reason"),
    [
        (nullcontext, torch.Tensor.double, "float32"),
        (nullcontext, lambda x: x.to("meta"), "on the CPU"),
        (nullcontext, lambda x: x.as_subclass(Subclass), "a tensor is of a subclass"),
        (lambda: torch.autocast("cpu", torch.bfloat16), None, "autocast"),
        (lambda: FlopCounterMode(display=False), None, "dispatch mode"),
        (lambda: torch.backends.mkldnn.flags(enabled=False), None, "switched off"),
    ],
    ids=["dtype", "device", "subclass", "autocast", "flops", "switched_off"],
)
def test_each_reason_against_it(context, change, reason):
    x = torch.randn(3, 24)
    with context():
        assert reason in why_not_onednn(setting_of(change(x) if change else x, False))
    assert why_not_onednn(setting_of(x, False)) is None
    assert "no gradient" in why_not_onednn(setting_of(x, True))


def make_block(cls):
    torch.manual_seed(0)
    attention = WindowAttention if cls is SwinBlock else CosineWindowAttention
    attn = attention(24, 3, (4, 4), is_shifted=True)
    block = cls(attn, 2.0, 0.0, 0.5, act_cfg=dict(type="GELU"), norm_cfg=dict(type="LN"))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block.eval()


@pytest.mark.parametrize("cls", [SwinBlock, SwinBlockV2])
def test_blocks_in_inference_run_it_and_equal_training(cls):
    block, x = make_block(cls), torch.randn(2, 9, 7, 24)
    with torch.no_grad():
        assert choose(block, x, "auto") == "sdpa"
        found = block(x)
    assert choose(block, x, "auto") is None
    torch.testing.assert_close(found, block(x), rtol=1e-4, atol=1e-4)


def drop_samples(block):
    block.drop_path.train()


def hook(*_):
    return None


@pytest.mark.parametrize(
    "change",
    [
        drop_samples,
        lambda b: b.mlp.fc1.register_forward_hook(hook),
        lambda b: b.attn.proj.register_forward_pre_hook(hook),
        lambda b: b.mlp.drop.__init__(0.1),
        lambda b: setattr(b.mlp, "act", nn.GELU("tanh")),
        lambda b: setattr(b.mlp, "fc2", torch.nn.utils.parametrizations.weight_norm(b.mlp.fc2)),
        lambda b: setattr(b.attn, "attn_backend", "reference"),
        lambda b: setattr(b.mlp.act, "forward", torch.relu),
    ],
    ids=["drop path", "hook", "pre-hook", "dropout", "gelu", "weight norm", "by name", "forward"],
)
@torch.no_grad()
def test_a_choice_is_made_again_after_a_change(change):
    block, x = make_block(SwinBlock), torch.randn(2, 9, 7, 24)
    assert choose(block, x, block.attn.attn_backend) == "sdpa"
    change(block)
    block.mlp.drop.train()
    assert choose(block, x, block.attn.attn_backend) is None


@torch.no_grad()
def test_a_choice_follows_dtype_autocast_and_mode():
    block, x = make_block(SwinBlock), torch.randn(2, 9, 7, 24)
    assert choose(block, x, "auto") == "sdpa"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose(block, x, "auto") is None
    assert choose(block, x.double(), "auto") is None
    with torch.enable_grad():
        assert choose(block, x, "auto") is None
    assert choose(block, x, "auto") == "sdpa"
    assert choose(copy.deepcopy(block), x, "auto") == "sdpa"


def count_calls(model, image) -> int:
    """Python calls into the package in one forward pass."""
    import sys

    calls = []

    def note(frame, event, _):
        if event == "call" and "/swin_mm/" in frame.f_code.co_filename:
            calls.append(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        model(image)
    finally:
        sys.setprofile(None)
    return len(calls)


@torch.no_grad()
def test_a_forward_pass_makes_few_calls():
    from swin_mm import SwinTransformer

    model, image = SwinTransformer(arch="tiny").eval(), torch.randn(1, 3, 224, 224)
    model(image)
    assert count_calls(model, image) <= 250
