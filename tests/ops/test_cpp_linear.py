"""Linear layers and MLPs in C++: against PyTorch in float64, and where they give way."""

import ctypes
import re
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from cpp_tools import WIDTHS, assert_as_exact, differentiate, vectors_of
from torch.utils.checkpoint import checkpoint

from swin_mm.ops import mlp as ops
from swin_mm.ops.cpp import build
from swin_mm.ops.cpp import linear as cpp
from swin_mm.ops.linear import linear
from swin_mm.ops.reference import Norm

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


def build_normed_inputs(case, dtype=torch.float32):
    """The same, and weight and bias of a norm; the map is far from being normalised."""
    x, *others = build_inputs(*case, dtype)
    generator = torch.Generator().manual_seed(1)
    norm = torch.randn(2, x.shape[-1], generator=generator, dtype=torch.float64).to(dtype)
    x = (3 * x.detach() - 4).requires_grad_()
    return [x, *others, norm[0].clone().requires_grad_(), norm[1].clone().requires_grad_()]


def cpp_normed(x, weight1, bias1, weight2, bias2, residual, *norm):
    return cpp.mlp(x, weight1, bias1, weight2, bias2, residual, Norm(*norm, 1e-3))


def readable_normed(x, weight1, bias1, weight2, bias2, residual, *norm):
    normed = F.layer_norm(x, x.shape[-1:], *norm, 1e-3)
    return readable(normed, weight1, bias1, weight2, bias2, residual)


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


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_norm_before_is_as_exact_as_pytorchs(case):
    tensors = build_normed_inputs(case)
    exact = differentiate(readable_normed, build_normed_inputs(case, torch.float64))
    usual = differentiate(readable_normed, tensors)
    assert_as_exact(differentiate(cpp_normed, tensors), usual, exact)


@pytest.mark.parametrize("channels", [5, 200, 1536])
def test_a_norm_before_a_layer_alone(channels):
    case = (3, 9, 13), channels, 40, 1
    x, weight, bias, *_, norm_weight, norm_bias = build_normed_inputs(case)
    tensors = [x, weight, bias, norm_weight, norm_bias]

    def ours(x, weight, bias, *norm):
        return cpp.linear(x, weight, bias, norm=Norm(*norm, 1e-5))

    def usual(x, weight, bias, *norm):
        return F.linear(F.layer_norm(x, x.shape[-1:], *norm, 1e-5), weight, bias)

    exact = differentiate(usual, [t.detach().double().requires_grad_() for t in tensors])
    assert_as_exact(differentiate(ours, tensors), differentiate(usual, tensors), exact)


@pytest.mark.parametrize("inputs", [700, 3072])
def test_long_sums_are_as_exact_as_pytorchs(inputs):
    x, weight, *_ = build_inputs((1, 16, 16), inputs, 64, 1)
    with torch.no_grad():
        exact = F.linear(x.double(), weight.double())
        assert_as_exact([cpp.linear(x, weight)], [F.linear(x, weight)], [exact])


@pytest.mark.parametrize("lanes", WIDTHS)
def test_vectors_of_other_processors(lanes, monkeypatch):
    with vectors_of(lanes, monkeypatch):
        assert build.load_library("linear").lanes() == lanes
        test_values_and_gradients_are_as_exact_as_pytorchs(CASES["several-chunks"], 6)
        test_a_norm_before_is_as_exact_as_pytorchs(CASES["part-of-a-panel"])


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


@pytest.mark.parametrize("index", range(8))
def test_only_what_is_asked_for_has_a_gradient_where_a_norm_is_before(index):
    tensors = [t.detach() for t in build_normed_inputs(CASES["wide"])]
    tensors[index].requires_grad_()
    (found,) = torch.autograd.grad(cpp_normed(*tensors).square().sum(), tensors[index])
    (wanted,) = torch.autograd.grad(readable_normed(*tensors).square().sum(), tensors[index])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("index", range(5))
def test_only_what_is_asked_for_has_a_gradient_in_a_layer(index):
    x, weight, bias, *_, norm_weight, norm_bias = build_normed_inputs(CASES["wide"])
    tensors = [t.detach() for t in (x, weight, bias, norm_weight, norm_bias)]
    tensors[index].requires_grad_()
    norm = Norm(*tensors[3:], 1e-5)
    (found,) = torch.autograd.grad(
        cpp.linear(*tensors[:3], norm=norm).square().sum(), tensors[index]
    )
    usual = F.linear(F.layer_norm(tensors[0], (96,), *norm), *tensors[1:3])
    (wanted,) = torch.autograd.grad(usual.square().sum(), tensors[index])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("with_norm", [False, True])
def test_gradients_of_gradients(with_norm):
    tensors = build_inputs(*CASES["odd-channels"])
    pair = cpp.mlp, readable
    if with_norm:
        tensors, pair = build_normed_inputs(CASES["odd-channels"]), (cpp_normed, readable_normed)
    asked = tensors[:4] + tensors[6:]

    def penalty(function):
        grads = torch.autograd.grad(function(*tensors).sin().sum(), asked, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), asked)

    for found, wanted in zip(*map(penalty, pair), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3 * wanted.abs().max().item())


def test_gradients_of_gradients_in_a_layer():
    x, weight, bias, *_, norm_weight, norm_bias = build_normed_inputs(CASES["odd-channels"])
    tensors = x, weight, bias, norm_weight, norm_bias

    def ours(*norm):
        return cpp.linear(x, weight, bias, norm=Norm(*norm, 1e-5))

    def usual(*norm):
        return F.linear(F.layer_norm(x, (5,), *norm, 1e-5), weight, bias)

    def penalty(function):
        out = function(norm_weight, norm_bias).sin().sum()
        grads = torch.autograd.grad(out, tensors, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), tensors)

    for found, wanted in zip(penalty(ours), penalty(usual), strict=True):
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


@pytest.mark.parametrize("with_norm", [False, True])
def test_one_map_of_hidden_channels_is_kept(with_norm):
    tensors, sizes = build_normed_inputs(CASES["wide"]), []

    def count(tensor):
        if not any(tensor.data_ptr() == t.data_ptr() for t in tensors):
            sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        cpp_normed(*tensors) if with_norm else cpp.mlp(*tensors[:6])
    assert sizes == [16 * 16 * 400]


WRONG_SHAPES = {  # what is changed, and what it is told to be
    "x": (0, "the first weight must be (96, 23), got (96, 24)"),
    "first bias": (2, "the first bias must be (96,), got (95,)"),
    "weight": (3, "the weight must be (24, 96), got (24, 95)"),
    "bias": (4, "the bias must be (24,), got (23,)"),
    "residual": (5, "the residual must be (3, 20, 31, 24), got (3, 20, 31, 23)"),
    "weight of the norm": (6, "the weight of the norm must be (24,), got (23,)"),
    "bias of the norm": (7, "the bias of the norm must be (24,), got (23,)"),
}


@pytest.mark.parametrize("index, message", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_shapes_that_do_not_fit(index, message):
    """Rather than read what is beside them in memory."""
    tensors = [t.detach() for t in build_normed_inputs(CASES["several-chunks"])]
    tensors[index] = tensors[index][..., :-1]
    with pytest.raises(ValueError, match=re.escape(message)):
        cpp_normed(*tensors)


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


def test_a_norm_of_another_dtype_is_for_pytorch_to_refuse():
    x, weight1, bias1, weight2, bias2, *_ = build_inputs(*CASES["wide"])
    norm = Norm(torch.ones(96).double(), torch.zeros(96).double(), 1e-5)
    with pytest.raises(RuntimeError, match="mixed dtype"):
        ops.mlp_with_residual(x, weight1, bias1, weight2, bias2, norm=norm)
    with pytest.raises(RuntimeError, match="mixed dtype"):
        linear(x, weight1, bias1, norm=norm)


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
