"""Window attention in C++: against the reference in float64, and where it gives way."""

import ctypes
from functools import partial

import pytest
import torch
from cpp_tools import WIDTHS, assert_as_exact, differentiate, vectors_of
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from swin_mm.ops import dispatch, reference
from swin_mm.ops.cpp import build
from swin_mm.ops.cpp import window_attention as cpp

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")

CASES = {  # size, window, shift, heads, head width
    "divisible": ((14, 21), (7, 7), (0, 0), 2, 32),
    "one-window": ((7, 7), (7, 7), (3, 3), 1, 16),
    "neither-axis": ((10, 13), (7, 7), (0, 0), 3, 32),
    "shifted": ((10, 13), (7, 7), (3, 3), 3, 32),
    "below-window": ((3, 5), (7, 7), (3, 3), 2, 24),
    "rectangle": ((9, 17), (3, 8), (1, 4), 2, 40),
    "one-axis-shifted": ((9, 17), (4, 4), (0, 2), 2, 48),
    "narrow-heads": ((8, 9), (4, 4), (2, 2), 3, 5),
    "whole-vectors-of-keys": ((9, 8), (4, 8), (2, 4), 2, 64),
    "two-blocks-of-queries": ((19, 13), (12, 12), (6, 6), 1, 32),
    "many-windows": ((140, 139), (4, 4), (2, 2), 1, 16),
    "shift-near-window": ((5, 4), (4, 4), (3, 3), 2, 16),
}


def build_inputs(size, window, shift, heads, width, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tokens = window[0] * window[1]
    shapes = (batch, *size, 3 * heads * width), (heads, tokens, tokens), (3 * heads * width,)
    tensors = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]
    return tensors, dict(num_heads=heads, window_size=window, shift_size=shift, scale=width**-0.5)


def run(attend, tensors, settings):
    """Output, and gradients to query, key and value, bias and padding."""
    return differentiate(partial(attend, **settings), tensors)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_as_exact_as_the_reference(case):
    tensors, settings = build_inputs(*case)
    exact = run(reference.window_attention, [t.double() for t in tensors], settings)
    stock = run(reference.window_attention, tensors, settings)
    assert_as_exact(run(cpp.window_attention, tensors, settings), stock, exact)


@pytest.mark.parametrize("lanes", WIDTHS)
@pytest.mark.parametrize("name", ["shifted", "narrow-heads", "two-blocks-of-queries"])
def test_vectors_of_other_processors(lanes, name, monkeypatch):
    with vectors_of(lanes, monkeypatch):
        assert build.load_library("window_attention").lanes() == lanes
        test_values_and_gradients_are_as_exact_as_the_reference(CASES[name])


def test_both_languages_agree_on_memory():
    library = build.load_library("window_attention")
    assert library.problem_size() == ctypes.sizeof(cpp._Problem)


def test_a_missing_padding_token_is_zero():
    tensors, settings = build_inputs(*CASES["shifted"])
    zeros = torch.zeros_like(tensors[2])
    found = cpp.window_attention(*tensors[:2], None, **settings)
    torch.testing.assert_close(found, reference.window_attention(*tensors[:2], zeros, **settings))


def test_weights_of_large_scores_still_sum_to_one():
    """Otherwise rows of the bias's gradient do not sum to zero, and what cancels there shows."""
    tensors, settings = build_inputs((70, 70), (7, 7), (0, 0), 1, 16, batch=1)
    with torch.no_grad():
        tensors[1] += 60
    rows = run(cpp.window_attention, tensors, settings)[2].sum(-1).abs().max()
    stock = run(reference.window_attention, tensors, settings)[2].sum(-1).abs().max()
    assert rows <= 2 * stock


def test_bias_gradients_that_add_up_over_many_windows_stay_exact():
    """Sums of one sign, where float32 loses a bit or two with each doubling of their length."""
    tensors, settings = build_inputs((160, 160), (4, 4), (0, 0), 1, 16, batch=1)
    with torch.no_grad():
        tensors[0][:, ::4, ::4, 32:] += 10  # the values of each window's first token
    found, exact = (
        torch.autograd.grad(attend(*given, **settings).sum(), given[1])[0]
        for attend, given in (
            (cpp.window_attention, tensors),
            (reference.window_attention, [t.double() for t in tensors]),
        )
    )
    assert ((found - exact).abs() / exact.abs())[..., 0].max() < 1.5e-7


def test_context_is_the_references():
    """Whose gradients have tests of their own; at zero it changes nothing, to the bit."""
    tensors, settings = build_inputs(*CASES["shifted"])
    plain = run(cpp.window_attention, tensors, settings)
    mix = torch.zeros(3, 32, 2 * 32)
    settings |= dict(context_mix=mix, context_scales=("window", "global"))
    for one, other in zip(run(cpp.window_attention, tensors, settings), plain, strict=True):
        assert torch.equal(one, other)
    mix.normal_(std=0.1)
    wanted = run(reference.window_attention, tensors, settings)
    for one, other in zip(run(cpp.window_attention, tensors, settings), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_strided_inputs_are_read_as_what_they_are():
    tensors, settings = build_inputs(*CASES["shifted"])
    qkv = tensors[0].detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    bias = tensors[1].detach().transpose(1, 2).contiguous().transpose(1, 2)
    pad = torch.stack([tensors[2].detach()] * 2, dim=1)[:, 0]
    found = cpp.window_attention(qkv, bias, pad, **settings)
    torch.testing.assert_close(found, cpp.window_attention(*tensors, **settings), rtol=0, atol=0)


def test_strided_gradients_are_read_as_what_they_are():
    tensors, settings = build_inputs(*CASES["shifted"])
    out = cpp.window_attention(*tensors, **settings)
    wanted = torch.autograd.grad(out, tensors, torch.ones_like(out), retain_graph=True)
    found = torch.autograd.grad(out, tensors, torch.ones(()).expand_as(out))
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_huge_logits_and_nan():
    tensors, settings = build_inputs(*CASES["shifted"])
    with torch.no_grad():
        tensors[0] *= 300  # products of up to 1e5
    found, *grads = run(cpp.window_attention, tensors, settings)
    wanted, *_ = run(reference.window_attention, [t.double() for t in tensors], settings)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-2)
    assert all(grad.isfinite().all() for grad in grads)
    with torch.no_grad():
        tensors[0][0, 0, 0, 0] = torch.nan
        found = cpp.window_attention(*tensors, **settings)
    assert found[0].isnan().any() and found[1].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_and_again(threads):
    tensors, settings = build_inputs(*CASES["neither-axis"])
    wanted = run(reference.window_attention, tensors, settings)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        first, second = (run(cpp.window_attention, tensors, settings) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    for one, other, value in zip(first, second, wanted, strict=True):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, value, rtol=1e-4, atol=1e-5)


def test_without_openmp_one_thread_does_all_parts(monkeypatch):
    tensors, settings = build_inputs(*CASES["shifted"])
    wanted = run(cpp.window_attention, tensors, settings)
    assert build.run_parallel().value is not None  # on Linux, with PyTorch's wheels
    monkeypatch.setattr(cpp, "run_parallel", lambda: None)
    for one, other in zip(wanted, run(cpp.window_attention, tensors, settings), strict=True):
        assert torch.equal(one, other)


def test_gradients_can_be_differentiated_again():
    tensors, settings = build_inputs((5, 6), (4, 4), (2, 2), 2, 16, batch=1)
    second = []
    for attend in (cpp.window_attention, reference.window_attention):
        (grad,) = torch.autograd.grad(
            attend(*tensors, **settings).square().sum(), tensors[0], create_graph=True
        )
        second.append(torch.autograd.grad(grad.square().sum(), tensors))
    for one, other in zip(*second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_under_checkpointing_and_with_frozen_inputs():
    tensors, settings = build_inputs(*CASES["shifted"])
    wanted = run(cpp.window_attention, tensors, settings)

    def recompute(*given, **kwargs):
        return checkpoint(cpp.window_attention, *given, use_reentrant=False, **kwargs)

    for one, other in zip(run(recompute, tensors, settings), wanted, strict=True):
        assert torch.equal(one, other)
    qkv, bias, pad = tensors
    out = cpp.window_attention(qkv.detach(), bias, pad.detach(), **settings)
    weight = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).sin()
    assert torch.equal(torch.autograd.grad(out, bias, weight.float())[0], wanted[2])


def choose(**changes):
    call = dict(
        device=torch.device("cpu"), needs_grad=True, dtype=torch.float32, head_dim=32, dropout=0.0
    )
    return dispatch._choose(dispatch.Call(**call | changes))


def test_auto_takes_it_for_training_and_inference():
    assert choose() == ("cpp", "first choice")
    assert choose(needs_grad=False) == ("cpp", "first choice")


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(device=torch.device("cuda")), "it runs on the CPU"),
        (dict(dtype=torch.bfloat16), "it is for float32, got torch.bfloat16"),
        (dict(dropout=0.1), "it has no dropout of attention weights, got 0.1"),
        (dict(is_plain=False), "a tensor is of a class of its own"),
    ],
    ids=["device", "dtype", "dropout", "subclass"],
)
def test_what_it_cannot_do_goes_elsewhere_with_the_reason(changes, reason):
    name, why = choose(**changes)
    assert name != "cpp" and f"cpp passed over: {reason}" in why


def test_by_name_it_raises_where_it_cannot_run():
    tensors, settings = build_inputs(*CASES["shifted"])
    with pytest.raises(ValueError, match="attn_backend='cpp' cannot run: it is for float32"):
        cpp.window_attention(*[t.double() for t in tensors], **settings)


def test_modes_and_transforms_see_pytorch_operators():
    tensors, settings = build_inputs(*CASES["shifted"])
    wanted = reference.window_attention(*tensors, **settings)
    with FlopCounterMode(display=False) as counter:
        dispatch.window_attention(*tensors, **settings)
    assert counter.get_total_flops() > 0
    batched = torch.vmap(lambda qkv: dispatch.window_attention(qkv, *tensors[1:], **settings))
    torch.testing.assert_close(batched(tensors[0][None])[0], wanted)


def test_forward_derivatives_come_from_pytorch_operators():
    tensors, settings = build_inputs(*CASES["shifted"])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensors[0], torch.ones_like(tensors[0]))
        out = dispatch.window_attention(dual, *tensors[1:], **settings)
        assert torch.autograd.forward_ad.unpack_dual(out).tangent is not None
