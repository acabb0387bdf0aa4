"""Window attention: backends against mmdet's modules and against one another."""

import logging

import pytest
import torch
from mmdet.models.backbones.swin import ShiftWindowMSA

from swin_mm.ops import dispatch
from swin_mm.ops.dispatch import explain, window_attention
from swin_mm.ops.window import relative_position_index

HEADS, DIM = 2, 8
# Kernels in Triton take no float64; they have tests of their own.
BACKENDS = [name for name in dispatch.IMPLEMENTATIONS if name != "triton"]
SIZES = {
    "divisible": (14, 21),
    "one-axis": (14, 17),
    "neither-axis": (19, 29),
    "below-window": (3, 5),
    "one-window": (7, 7),
}


def inputs(size, window=(7, 7), batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = window[0] * window[1]
    qkv = torch.randn(batch, *size, 3 * HEADS * DIM, generator=generator, dtype=torch.float64)
    bias = torch.randn(HEADS, tokens, tokens, generator=generator, dtype=torch.float64)
    pad = torch.randn(3 * HEADS * DIM, generator=generator, dtype=torch.float64)
    return [t.to(dtype).requires_grad_() for t in (qkv, bias, pad)]


def attend(tensors, backend, window=(7, 7), shift=(0, 0), **kwargs):
    return window_attention(
        *tensors,
        num_heads=HEADS,
        window_size=window,
        shift_size=shift,
        scale=DIM**-0.5,
        backend=backend,
        **kwargs,
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_values_and_gradients_are_those_of_mmdet(size, shift, backend):
    """In float64, with the gradient of the qkv bias through padded tokens."""
    torch.manual_seed(0)
    width = HEADS * DIM
    stock = ShiftWindowMSA(width, HEADS, window_size=7, shift_size=shift).double()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, *size, width, dtype=torch.float64, requires_grad=True)
    w_msa = stock.w_msa
    index = relative_position_index((7, 7))
    bias = w_msa.relative_position_bias_table[index].permute(2, 0, 1)
    out = w_msa.proj(attend([w_msa.qkv(x), bias, w_msa.qkv.bias], backend, shift=(shift, shift)))
    expected = stock(x.flatten(1, 2), size).unflatten(1, size)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    direction = torch.randn_like(out)
    leaves = [x, *stock.parameters()]
    grads = torch.autograd.grad(out, leaves, direction)
    expected_grads = torch.autograd.grad(expected, leaves, direction)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shift", [(0, 0), (2, 3)], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_backends_agree_on_rectangular_windows(batch, shift):
    tensors = inputs((9, 13), (4, 6), batch)
    reference = attend(tensors, "reference", (4, 6), shift)
    torch.testing.assert_close(attend(tensors, "sdpa", (4, 6), shift), reference)


def test_gradients_by_finite_differences():
    tensors = inputs((3, 5), (2, 3), batch=1)
    torch.autograd.gradcheck(lambda *t: attend(t, "reference", (2, 3), (1, 1)), tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shift", [0, 3])
def test_half_precision_error_within_twice_the_reference(dtype, shift):
    exact = inputs((19, 29))
    tensors = [t.detach().to(dtype) for t in exact]
    target = attend([t.double() for t in tensors], "reference", shift=(shift, shift))
    errors = {}
    for backend in BACKENDS:
        out = attend(tensors, backend, shift=(shift, shift))
        assert out.dtype == dtype
        errors[backend] = (out.double() - target).norm()
    assert errors["sdpa"] <= 2 * errors["reference"]


def test_strided_input_is_read_as_it_is():
    qkv, bias, pad = inputs((9, 13))
    strided = qkv.detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert not strided.is_contiguous()
    for backend in BACKENDS:
        out = attend([strided, bias, pad], backend, shift=(3, 3))
        torch.testing.assert_close(out, attend([qkv, bias, pad], backend, shift=(3, 3)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_drops(backend):
    torch.manual_seed(0)
    qkv, bias, _ = inputs((14, 14), dtype=torch.float32)
    still, moving = (attend([qkv, bias, None], backend, dropout=p) for p in (0.0, 0.5))
    assert (still - moving).abs().mean() > 0.05
    many = torch.stack([attend([qkv, bias, None], backend, dropout=0.5) for _ in range(200)])
    assert (many.mean(0) - still).abs().mean() < 0.1


@pytest.fixture
def ran(monkeypatch):
    """Names of the backends that run, in order."""
    names = []
    for name, implementation in dispatch.IMPLEMENTATIONS.items():

        def run(*args, name=name, run=implementation.attention, **kwargs):
            names.append(name)
            return run(*args, **kwargs)

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, name, implementation._replace(attention=run))
    return names


@pytest.mark.parametrize(("grad", "expected"), [(True, "reference"), (False, "sdpa")])
def test_auto_on_cpu_in_float64(grad, expected, ran):
    with torch.set_grad_enabled(grad):
        attend(inputs((7, 7)), "auto")
    assert ran == [expected]


@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_auto_on_cpu_runs_what_it_says(grad, ran):
    with torch.set_grad_enabled(grad):
        attend(inputs((7, 7), dtype=torch.float32), "auto")
    use = "training" if grad else "inference"
    assert (f"attention, cpu {use}", *ran) in [row[:2] for row in explain()]


def test_the_choice_is_logged_once(caplog):
    dispatch.log_choice.cache_clear()
    with caplog.at_level(logging.DEBUG, logger="swin_mm"):
        attend(inputs((7, 7)), "auto")
        attend(inputs((7, 7)), "auto")
    assert [r.message for r in caplog.records if "not sdpa: its fused" in r.message]
    assert len(caplog.records) == 1


def test_inference_then_training_at_one_size():
    tensors = inputs((20, 20))
    with torch.inference_mode():
        attend(tensors, "auto", shift=(3, 3))
    attend(tensors, "auto", shift=(3, 3)).sum().backward()
    assert tensors[0].grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(backend="flash"), "attn_backend must be one of .*got 'flash'"),
        (dict(num_heads=5), r"C a multiple of num_heads=5, got \(2, 7, 7, 48\)"),
        (dict(window_size=(4, 4)), r"rel_pos_bias must be \(2, 16, 16\)"),
        (dict(shift_size=(7, 0)), r"shift_size must be in \[0, window_size\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = dict(num_heads=HEADS, window_size=(7, 7), scale=1.0, backend="auto") | change
    with pytest.raises(ValueError, match=message):
        window_attention(*inputs((7, 7)), **arguments)


def test_a_removed_backend_means_auto(caplog):
    expected = attend(inputs((7, 7)), "auto")
    assert torch.equal(attend(inputs((7, 7)), "cpp"), expected)
    assert "attn_backend='cpp' was removed; 'auto' is used instead" in caplog.text
