"""Linear layers and MLPs in C++: against PyTorch in float64, and where they give way."""

import ctypes
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from cpp_tools import WIDTHS, assert_as_exact, differentiate, vectors_of
from torch.utils.checkpoint import checkpoint

from swin_mm.ops import mlp as ops
from swin_mm.ops.cpp import build
from swin_mm.ops.cpp import linear as cpp

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")

CASES = {  # tokens, channels, hidden, channels of the output
    "several-chunks": ((3, 20, 31), 24, 96, 24),
    "part-of-a-panel": ((1, 9, 17), 32, 128, 32),
    "odd-channels": ((2, 10, 13), 5, 64, 7),
    "wide": ((1, 16, 16), 96, 400, 96),
    "rows": ((301,), 48, 192, 40),
}


def build_inputs(shape, channels, hidden, out_channels, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (*shape, channels), (hidden, channels), (hidden,)
    shapes += (out_channels, hidden), (out_channels,), (*shape, out_channels)
    tensors = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    tensors[1] /= channels**0.5
    tensors[3] /= hidden**0.5
    return [t.to(dtype).requires_grad_() for t in tensors]


def readable(x, weight1, bias1, weight2, bias2, residual=0):
    return F.linear(F.gelu(F.linear(x, weight1, bias1)), weight2, bias2) + residual


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # few tokens are for few threads
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [5, 6], ids=["alone", "residual"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_as_exact_as_pytorchs(case, count):
    tensors = build_inputs(*case)[:count]
    exact = differentiate(readable, [t.detach().double().requires_grad_() for t in tensors])
    assert cpp.mlp_refusal(*tensors[:5]) is None
    assert_as_exact(differentiate(cpp.mlp, tensors), differentiate(readable, tensors), exact)


@pytest.mark.parametrize("lanes", WIDTHS)
def test_vectors_of_other_processors(lanes, monkeypatch):
    with vectors_of(lanes, monkeypatch):
        assert build.load_library("linear").lanes() == lanes
        test_values_and_gradients_are_as_exact_as_pytorchs(CASES["several-chunks"], 6)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_layer_alone(case, with_bias, with_residual):
    shape, channels, _, out_channels = case
    x, weight, bias, *_ = build_inputs(shape, channels, out_channels, 1)
    residual = build_inputs(*case)[5]
    tensors = [x, weight, *([bias] * with_bias), *([residual] * with_residual)]

    def run(x, weight, *others, layer=F.linear):
        others = list(others)
        bias = others.pop(0) if with_bias else None
        if layer is cpp.linear:
            return cpp.linear(x, weight, bias, *others)
        return F.linear(x, weight, bias) + (others[0] if others else 0)

    exact = differentiate(run, [t.detach().double().requires_grad_() for t in tensors])
    ours = differentiate(partial(run, layer=cpp.linear), tensors)
    assert_as_exact(ours, differentiate(run, tensors), exact)


def test_both_languages_agree_on_memory():
    assert build.load_library("linear").problem_size() == ctypes.sizeof(cpp._Problem)


def test_gelu_and_its_gradient_everywhere():
    """By an MLP of units: each token is one number, which is its only hidden channel."""
    x = torch.cat([torch.linspace(-14, 14, 20001), torch.tensor([0.0, -0.0, 1e-30, 200, -200])])
    one, zero = torch.zeros(64, 1), torch.zeros(64)
    one[0] = 1
    tensors = [x[:, None].requires_grad_(), one, zero, one.T.contiguous(), zero[:1]]
    out = cpp.mlp(*tensors)
    (grad,) = torch.autograd.grad(out.sum(), tensors[:1])
    exact = x.detach().double().requires_grad_()
    wanted = F.gelu(exact)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), [exact])
    size = exact.detach().abs().clamp(min=1)
    assert ((out.flatten() - wanted).abs() / size).max() < 1.2e-7
    assert (grad.flatten() - wanted_grad).abs().max() < 2.5e-7


def test_what_is_not_finite_shows():
    tensors = build_inputs(*CASES["wide"])
    with torch.no_grad():
        tensors[0][0, 3, 4, 5] = torch.nan
        tensors[0][0, 5, 5, 5] = torch.inf
        found, wanted = cpp.mlp(*tensors), readable(*tensors)
    assert torch.equal(found.isfinite(), wanted.isfinite())


def test_the_number_of_threads_changes_no_bit():
    tensors = build_inputs((1, 40, 30), 24, 96, 24)
    with torch.no_grad():
        alone = cpp.mlp(*tensors)
        torch.set_num_threads(2)
        assert torch.equal(cpp.mlp(*tensors), alone)


def test_inputs_that_are_not_contiguous():
    tensors = build_inputs(*CASES["wide"])
    strided = [t.detach().t().contiguous().t() if t.dim() == 2 else t.detach() for t in tensors]
    strided[0] = tensors[0].detach().transpose(1, 2)
    strided[5] = tensors[5].detach().transpose(1, 2)
    strided = [t.requires_grad_() for t in strided]
    for found, wanted in zip(
        differentiate(cpp.mlp, strided), differentiate(readable, strided), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("index", range(6))
def test_only_what_is_asked_for_has_a_gradient(index):
    tensors = [t.detach() for t in build_inputs(*CASES["wide"])]
    tensors[index].requires_grad_()
    (found,) = torch.autograd.grad(cpp.mlp(*tensors).square().sum(), tensors[index])
    (wanted,) = torch.autograd.grad(readable(*tensors).square().sum(), tensors[index])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_gradients_of_gradients():
    tensors = build_inputs(*CASES["odd-channels"])

    def penalty(function):
        grads = torch.autograd.grad(function(*tensors).sin().sum(), tensors[:4], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), tensors[:4])

    for found, wanted in zip(penalty(cpp.mlp), penalty(readable), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3 * wanted.abs().max().item())


def test_gradients_of_gradients_where_an_input_comes_from_another():
    """As where layers share weights: what leads from one to the other is not counted twice."""
    x, *rest = build_inputs(*CASES["odd-channels"])[:5]

    def penalty(function):
        inputs = [x * rest[1].sum().sin(), *rest]
        (grad,) = torch.autograd.grad(function(*inputs).sin().sum(), rest[1], create_graph=True)
        return [grad.detach(), *torch.autograd.grad(grad.square().sum(), rest[:2])]

    for found, wanted in zip(penalty(cpp.mlp), penalty(readable), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3 * wanted.abs().max().item())


def test_checkpointing():
    tensors = build_inputs(*CASES["wide"])
    plain = differentiate(cpp.mlp, tensors)
    again = differentiate(lambda *t: checkpoint(cpp.mlp, *t, use_reentrant=False), tensors)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_one_map_of_hidden_channels_is_kept():
    tensors, sizes = build_inputs(*CASES["wide"]), []

    def count(tensor):
        if not any(tensor.data_ptr() == t.data_ptr() for t in tensors):
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        cpp.mlp(*tensors)
    assert sizes == [16 * 16 * 400]


REFUSALS = {
    "dtype": (dict(dtype=torch.float64), "it is for float32, got"),
    "few tokens": (dict(shape=(3, 2)), "6 tokens are too few for 1 threads"),
    "hidden": (dict(hidden=90), "hidden channels must be a multiple of"),
}


@pytest.mark.parametrize("changes, reason", REFUSALS.values(), ids=REFUSALS)
def test_refusals_by_shape_and_dtype(changes, reason):
    wanted = dict(shape=(1, 20, 20), channels=24, hidden=96, out_channels=24)
    tensors = build_inputs(**(wanted | changes))
    assert reason in cpp.mlp_refusal(*tensors[:5])
    torch.testing.assert_close(ops.mlp_with_residual(*tensors), readable(*tensors))


def test_refusals_by_surroundings():
    tensors = build_inputs(*CASES["wide"])
    assert cpp.mlp_refusal(*tensors[:2], None, *tensors[3:5]) == "it is for layers with a bias"
    assert cpp.mlp_refusal(tensors[0].to("meta"), *tensors[1:5]) == "it runs on the CPU"
    with torch.autocast("cpu", torch.bfloat16):
        assert cpp.mlp_refusal(*tensors[:5]) == "autocast chooses the dtype"
    reasons = []

    def look(x):
        reasons.append(cpp.mlp_refusal(x, *tensors[1:5]))
        return ops.mlp_with_residual(x, *tensors[1:5])

    torch.testing.assert_close(torch.vmap(look)(tensors[0]), readable(*tensors[:5]))
    assert "watches the operators" in reasons[0]


def test_a_machine_without_a_compiler(monkeypatch):
    monkeypatch.setattr(cpp, "build_refusal", lambda name: "there is no C++ compiler")
    monkeypatch.setattr(cpp, "mlp", None)
    tensors = build_inputs(*CASES["wide"])
    torch.testing.assert_close(ops.mlp_with_residual(*tensors), readable(*tensors))
