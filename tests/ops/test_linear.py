"""Linear layers with what follows: equal to the readable formula, or refused with a reason."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from swin_mm.ops.linear import linear, refusal

FUSED = "mkldnn::_linear_pointwise"
SHAPES = [(1, 7), (2, 5, 13, 24), (0, 24), (3, 1, 1, 33)]


def draw(shape, out=19, dtype=torch.float32, bias=True):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(out, shape[-1], dtype=dtype)
    return x, weight, torch.randn(out, dtype=dtype) if bias else None


def ran(call) -> set[str]:
    """The operators that a call ran."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        call()
    return {event.key for event in record.key_averages()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("form", ["none", "gelu", "residual"])
def test_the_fused_operator_equals_the_formula(shape, bias, form):
    x, weight, b = draw(shape, bias=bias)
    residual = torch.randn(*shape[:-1], 19) if form == "residual" else None
    activation = "gelu" if form == "gelu" else "none"
    wanted = F.linear(x.double(), weight.double(), None if b is None else b.double())
    if form == "gelu":
        wanted = F.gelu(wanted)
    if residual is not None:
        wanted = wanted + residual

    def call():
        return linear(x, weight, b, activation=activation, residual=residual)

    assert FUSED in ran(call)
    torch.testing.assert_close(call(), wanted.float(), rtol=1e-5, atol=1e-5)


def test_strided_inputs():
    x, weight, bias = draw((2, 5, 13, 24))
    residual = torch.randn(2, 13, 5, 19).transpose(1, 2)
    x = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert not x.is_contiguous() and not residual.is_contiguous()
    wanted = F.linear(x, weight, bias) + residual
    torch.testing.assert_close(linear(x, weight, bias, residual=residual), wanted)


def test_activation_and_residual_together():
    x, weight, bias = draw((4, 24))
    residual = torch.randn(4, 19)
    wanted = F.gelu(F.linear(x, weight, bias)) + residual
    found = linear(x, weight, bias, activation="gelu", residual=residual)
    torch.testing.assert_close(found, wanted)


class Watched(torch.Tensor):
    """A class of its own, as quantised and distributed tensors are."""


def _as_watched(x):
    return x.as_subclass(Watched)


@pytest.mark.parametrize(
    ("context", "change", "reason"),
    [
        (nullcontext, torch.Tensor.requires_grad_, "no gradient"),
        (nullcontext, torch.Tensor.double, "float32"),
        (nullcontext, lambda x: x.to("meta"), "on the CPU"),
        (nullcontext, _as_watched, "class of its own"),
        (lambda: torch.autocast("cpu", torch.bfloat16), None, "autocast"),
        (lambda: FlopCounterMode(display=False), None, "watches"),
        (lambda: torch.backends.mkldnn.flags(enabled=False), None, "switched off"),
    ],
    ids=["grad", "dtype", "device", "subclass", "autocast", "flops", "switched_off"],
)
def test_each_refusal_gives_its_reason_and_the_formula(context, change, reason):
    tensors = [change(t) if change else t for t in draw((3, 24))]
    with context():
        assert reason in refusal(*tensors)
        wanted = F.linear(*tensors)
        found = linear(*tensors)
    assert found.dtype == wanted.dtype and found.device == wanted.device
    if found.device.type != "meta":
        assert torch.equal(found, wanted)


def test_no_refusal_where_gradients_are_switched_off():
    tensors = [t.requires_grad_() for t in draw((3, 24))]
    assert refusal(*tensors) is not None
    with torch.no_grad():
        assert refusal(*tensors) is None


def test_multiplications_are_counted():
    """The counter of operations does not know oneDNN's operator."""
    with FlopCounterMode(display=False) as counter:
        linear(*draw((3, 24)))
    assert counter.get_total_flops() == 2 * 3 * 24 * 19


def test_vmap_compile_and_export():
    x, weight, bias = draw((5, 3, 24))
    wanted = F.linear(x, weight, bias)
    mapped = torch.vmap(lambda sample: linear(sample, weight, bias))(x)
    torch.testing.assert_close(mapped, wanted)

    class Layer(torch.nn.Module):
        def forward(self, x):
            return linear(x, weight, bias)

    with torch.no_grad():
        exported = torch.export.export(Layer(), (x,))
        compiled = torch.compile(Layer(), backend="eager", fullgraph=True)
        torch.testing.assert_close(exported.module()(x), wanted)
        torch.testing.assert_close(compiled(x), wanted)
    assert "mkldnn" not in str(exported.graph)


def test_second_derivatives():
    tensors = [t.double().requires_grad_() for t in draw((2, 4), out=3)]
    assert torch.autograd.gradgradcheck(lambda *t: linear(*t, activation="gelu"), tensors)


def test_bad_input():
    x, weight, bias = draw((3, 24))
    with pytest.raises(ValueError, match="activation must be 'none' or 'gelu', got 'relu'"):
        linear(x, weight, bias, activation="relu")
    with pytest.raises(ValueError, match=r"residual must be \(3, 19\)"):
        linear(x, weight, bias, residual=torch.zeros(19))


def test_forward_derivatives_pass_through():
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4)
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        out = linear(dual, weight, bias)
        tangent = torch.autograd.forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(tangent, weight.sum(1).expand(5, 4))
