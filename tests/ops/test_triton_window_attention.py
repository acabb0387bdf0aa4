"""Window attention in Triton: values and gradients against the reference in float64.

Without a GPU the kernels run in Triton's interpreter, on small maps (see `tests/conftest.py`);
with one, the same tests run compiled.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from swin_mm.ops import dispatch, reference, self_test
from swin_mm.ops.setting import Setting, setting_of
from swin_mm.ops.triton import support

triton = pytest.importorskip("triton")
from swin_mm.ops.triton import launch  # noqa: E402  (needs Triton)
from swin_mm.ops.triton.window_attention import window_attention  # noqa: E402

HAS_GPU = torch.cuda.is_available() and not launch.IS_INTERPRETED
DEVICE = "cuda" if HAS_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if HAS_GPU else []
if not HAS_GPU and not launch.IS_INTERPRETED:
    pytest.skip("neither a GPU nor Triton's interpreter", allow_module_level=True)

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
# size, window, shift, heads, width of a head, dtype
CASES = {
    "divisible": ((8, 8), (4, 4), (0, 0), 2, 16, F32),
    "divisible-shifted": ((8, 8), (4, 4), (2, 2), 1, 32, F16),
    "one-axis": ((4, 9), (4, 4), (2, 2), 1, 24, BF16),
    "neither-axis": ((7, 9), (4, 4), (2, 1), 1, 16, F32),
    "below-window": ((3, 5), (7, 7), (3, 3), 2, 32, F16),
    "one-window": ((7, 7), (7, 7), (3, 3), 2, 48, BF16),
    "rectangular": ((6, 11), (4, 6), (2, 0), 1, 64, F16),
    "one-row": ((1, 70), (1, 64), (0, 0), 1, 32, BF16),
    "two-tiles": ((5, 10), (9, 8), (4, 3), 1, 16, F32),
    "two-tiles-padded": ((8, 6), (9, 8), (4, 4), 2, 24, F16),
    "two-tiles-bfloat16": ((10, 9), (10, 8), (0, 4), 1, 48, BF16),
    "nine-tiles": ((9, 11), (12, 12), (6, 6), 1, 32, F16),
}


def why_not(device, dtype, head_dim, dropout):
    return support.why_not_attention(Setting(device, dtype), head_dim, dropout)


def make_inputs(size, window, heads, head_dim, dtype, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens, width = window[0] * window[1], heads * head_dim
    shapes = (batch, *size, 3 * width), (heads, tokens, tokens), (3 * width,)
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    return [tensor.to(DEVICE, dtype).requires_grad_() for tensor in tensors]


def run(attend, tensors, window, shift, heads, scale=None):
    """The output and the gradients of all tensors but `None`."""
    width = tensors[0].shape[-1] // 3
    scale = (width // heads) ** -0.5 if scale is None else scale
    out = attend(*tensors, num_heads=heads, window_size=window, shift_size=shift, scale=scale)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    inputs = [tensor for tensor in tensors if tensor is not None]
    return [out, *torch.autograd.grad(out, inputs, direction.to(out))]


def assert_within_twice_the_reference(tensors, *args, **kwargs):
    exact = [t if t is None else t.detach().double().requires_grad_() for t in tensors]
    expected = run(reference.window_attention, exact, *args, **kwargs)
    stock = run(reference.window_attention, tensors, *args, **kwargs)
    found = run(window_attention, tensors, *args, **kwargs)
    names = ["out", "qkv", "bias", "pad_token"][: len(found)]
    if expected[2][..., 0].numel() >= 16:  # of fewer, an error is a draw
        names.append("sums of the bias's rows")  # of exact weights, they are zero
        for results in (expected, stock, found):
            results.append(results[2].double().sum(-1))
    for name, value, other, target in zip(names, found, stock, expected, strict=True):
        assert value.dtype == other.dtype
        error, budget = (value.double() - target).norm(), (other.double() - target).norm()
        # In float32 the reference may be right to the last bit: half of one is granted.
        slack = target.norm() * torch.finfo(value.dtype).eps / 2
        assert error <= 2 * budget + slack, f"{name}: {error=}, {budget=}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(case):
    size, window, shift, heads, head_dim, dtype = case
    tensors = make_inputs(size, window, heads, head_dim, dtype)
    assert_within_twice_the_reference(tensors, window, shift, heads)


@pytest.mark.slow
@pytest.mark.parametrize("window", [(4, 4), (9, 8)], ids=["one-tile", "two-tiles"])
@pytest.mark.parametrize("dtype", [F32, F16, BF16], ids=str)
def test_large_scores(dtype, window):
    """As of V2, whose cosines have factors of up to 100: roundings in units of the scores count."""
    qkv, bias, pad_token = make_inputs((7, 10), window, 1, 16, dtype)
    with torch.no_grad():
        for part in qkv.split(16, -1)[:2]:
            part /= part.norm(dim=-1, keepdim=True)
        bias += 50
    assert_within_twice_the_reference([qkv, bias, pad_token], window, (2, 3), 1, scale=100.0)


@settings(max_examples=200 if HAS_GPU else 6, deadline=None, derandomize=not HAS_GPU)
@given(st.data())
def test_any_problem(data):
    largest = 24 if HAS_GPU else 6
    window = data.draw(st.tuples(*[st.integers(2, largest)] * 2), "window")
    shift = tuple(data.draw(st.integers(0, side - 1), "shift") for side in window)
    size = data.draw(st.tuples(*[st.integers(1, 60 if HAS_GPU else 8)] * 2), "size")
    heads = data.draw(st.integers(1, 2), "heads")
    head_dim = data.draw(st.sampled_from([16, 24, 32, 48, 64]), "head_dim")
    dtype = data.draw(st.sampled_from([F32, F16, BF16]), "dtype")
    seed = data.draw(st.integers(0, 2**32), "seed")
    tensors = make_inputs(size, window, heads, head_dim, dtype, seed=seed)
    if data.draw(st.booleans(), "without a padding token"):
        tensors[2] = None
    assert_within_twice_the_reference(tensors, window, shift, heads)


@pytest.mark.slow
@pytest.mark.parametrize("window", [(4, 4), (9, 8)], ids=["one-tile", "two-tiles"])
def test_batches_in_programs_of_several_windows(window, monkeypatch):
    """Partial sums of several programs, each of several windows."""
    monkeypatch.setattr(launch, "count_processors", lambda device: 1)
    size = (window[0], window[1] - 1)
    tensors = make_inputs(size, window, 1, 16, F32, batch=7 if window == (4, 4) else 3)
    assert_within_twice_the_reference(tensors, window, (1, 1), 1)


@pytest.mark.slow
@pytest.mark.parametrize("window", [(4, 4), (9, 8)], ids=["one-tile", "two-tiles"])
def test_two_runs_give_the_same_bits(window):
    tensors = make_inputs((5, 7), window, 1, 16, F16)
    first, second = (run(window_attention, tensors, window, (1, 1), 1) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.slow
@pytest.mark.parametrize("window", [(4, 4), (9, 8)], ids=["one-tile", "two-tiles"])
@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_huge_scores(window, dtype):
    """Scores of 1e4 and more, which the mask does not outweigh."""
    qkv, bias, pad_token = make_inputs((5, 7), window, 1, 16, dtype)
    with torch.no_grad():
        qkv[..., :32] *= 60
        bias *= 1e4
    tensors = [qkv, bias, pad_token]
    assert (qkv[..., :16] * qkv[..., 16:32]).sum(-1).abs().max() > 1e4
    found = run(window_attention, tensors, window, (2, 2), 1, scale=1.0)
    assert all(tensor.isfinite().all() for tensor in found)
    if dtype == F32:  # where a score of 1e4 is known to 1e-3
        expected = run(reference.window_attention, tensors, window, (2, 2), 1, scale=1.0)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("window", [(4, 4), (9, 8)], ids=["one-tile", "two-tiles"])
def test_nothing_outside_the_map_is_read(window):
    """The map lies amid numbers that are none, and its channels are read where they are."""
    qkv, bias, pad_token = make_inputs((5, 7), window, 1, 16, F32)
    around = torch.full((3, 7, 9, 3 * 16 + 5), torch.nan, device=DEVICE)
    around[1:2, 1:6, 1:8, 2:-3] = qkv.detach()
    strided = around[1:2, 1:6, 1:8, 2:-3].requires_grad_()
    expected = run(window_attention, [qkv, bias, pad_token], window, (2, 2), 1)
    found = run(window_attention, [strided, bias, pad_token], window, (2, 2), 1)
    assert all(map(torch.equal, found, expected))


def test_channels_that_are_not_adjacent():
    qkv, bias, pad_token = make_inputs((5, 6), (4, 4), 2, 16, F32)
    strided = qkv.detach().permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1).requires_grad_()
    expected = run(window_attention, [qkv, bias, pad_token], (4, 4), (2, 2), 2)
    found = run(window_attention, [strided, bias, pad_token], (4, 4), (2, 2), 2)
    assert all(map(torch.equal, found, expected))


def test_mixed_context():
    tensors = make_inputs((3, 6), (4, 4), 2, 16, F32)
    mix = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    context = dict(context_mix=mix.requires_grad_(), context_scales=("window", "global"))
    kwargs = dict(num_heads=2, window_size=(4, 4), shift_size=(2, 2), scale=0.25)
    results = []
    for backend in ("triton", "reference"):
        out = dispatch.window_attention(*tensors, **kwargs, **context, backend=backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), [*tensors, mix])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_an_empty_batch():
    tensors = make_inputs((5, 6), (4, 4), 2, 16, F32, batch=0)
    out, grad_qkv, grad_bias, grad_pad = run(window_attention, tensors, (4, 4), (2, 2), 2)
    assert out.shape == (0, 5, 6, 32) and grad_qkv.shape == (0, 5, 6, 96)
    assert not grad_bias.any() and not grad_pad.any()


def test_inputs_without_gradient():
    tensors = make_inputs((3, 4), (4, 4), 1, 16, F32)
    expected = run(window_attention, tensors, (4, 4), (2, 2), 1)
    for asked in ((True, False, False), (False, True, False), (False, False, True)):
        some = [t.detach().requires_grad_(ask) for t, ask in zip(tensors, asked, strict=True)]
        out = window_attention(
            *some, num_heads=1, window_size=(4, 4), shift_size=(2, 2), scale=16**-0.5
        )
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        out.backward(direction.to(DEVICE))
        for tensor, grad in zip(some, expected[1:], strict=True):
            assert (tensor.grad is None) != tensor.requires_grad
            assert tensor.grad is None or torch.equal(tensor.grad, grad)


def test_gradients_of_gradients_are_refused():
    qkv, bias, pad_token = make_inputs((3, 4), (2, 3), 1, 16, F32)
    settings = dict(num_heads=1, window_size=(2, 3), shift_size=(1, 1), scale=0.5)
    out = window_attention(qkv, bias, pad_token, **settings)
    with pytest.raises(RuntimeError, match="attn_backend='reference' for create_graph=True"):
        torch.autograd.grad(out.sum(), qkv, create_graph=True)


def test_recomputed_in_backward():
    """As in checkpointed blocks, whose saved tensors can be read once."""
    tensors = make_inputs((3, 4), (4, 4), 1, 16, F32)

    def attend(*args, **kwargs):
        return checkpoint(window_attention, *args, use_reentrant=False, **kwargs)

    found = run(attend, tensors, (4, 4), (1, 1), 1)
    expected = run(window_attention, tensors, (4, 4), (1, 1), 1)
    assert all(map(torch.equal, found, expected))


@pytest.mark.slow
def test_compiled_in_one_graph_for_sizes_that_change():
    torch._dynamo.reset()
    window = (9, 8)
    compiled = torch.compile(window_attention, backend="aot_eager", dynamic=True, fullgraph=True)
    for size in ((7, 9), (5, 11)):
        tensors = make_inputs(size, window, 1, 16, F32)
        found = run(compiled, tensors, window, (1, 1), 1)
        expected = run(window_attention, tensors, window, (1, 1), 1)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(dtype=torch.float64), "they take torch.float32, .* got torch.float64"),
        (dict(head_dim=96), "heads of up to 64 channels, got 96"),
        (dict(dropout=0.1), "no dropout of attention weights, got 0.1"),
    ],
    ids=["dtype", "head width", "dropout"],
)
def test_what_does_not_fit_is_refused(arguments, message):
    fits = dict(device=torch.device(DEVICE), dtype=F32, head_dim=32, dropout=0.0)
    assert why_not(**fits) is None
    assert re.search(message, why_not(**fits | arguments))


# Two tiles take the interpreter half a minute here, and their values are tested above.
@pytest.mark.parametrize("window", [(4, 4), (9, 8)] if HAS_GPU else [(4, 4)], ids=str)
@pytest.mark.parametrize("dtype", [F32, F16, BF16] if HAS_GPU else [BF16], ids=str)
def test_a_self_test_passes(dtype, window, monkeypatch, caplog):
    monkeypatch.setattr(self_test, "_results", {})
    if not HAS_GPU:
        monkeypatch.setattr(self_test, "ATTENTION_TOKENS", 1)
    device = torch.zeros(1, device=DEVICE).device
    assert self_test.why_not_attention(device, dtype, window, 32) is None, caplog.text


def test_an_attention_that_does_not_fit_raises():
    tensors = make_inputs((4, 4), (4, 4), 1, 16, F32)
    with pytest.raises(ValueError, match="'triton' cannot run: they have no dropout"):
        window_attention(
            *tensors,
            num_heads=1,
            window_size=(4, 4),
            shift_size=(0, 0),
            scale=1.0,
            dropout=0.5,
        )


def test_transforms_are_refused():
    def transformed(x):
        setting = setting_of(torch.zeros(1, device=DEVICE), needs_grad=False)
        assert "torch.func" in support.why_not_attention(setting, 32, 0.0)
        return x

    torch.func.vmap(transformed)(torch.zeros(2))


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            (torch.cuda, "get_device_capability", lambda device: (7, 5)),
            "need .* 8.0, cuda:0 has 7.5",
        ),
        ((torch.version, "hip", "7.0"), "this is ROCm"),
        ((importlib.util, "find_spec", lambda name: None), "Triton is not installed"),
    ],
    ids=["capability", "ROCm", "no-triton"],
)
def test_machines_are_refused(patch, message, monkeypatch):
    monkeypatch.setattr(*patch)
    assert re.search(message, why_not(torch.device("cuda", 0), F32, 32, 0.0))


def test_a_machine_that_fits_is_accepted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    gpu, cpu = torch.device("cuda", 0), torch.device("cpu")
    setting = Setting(gpu, BF16, needs_grad=True)
    attention = dispatch.Attention(32, (7, 7))
    why_not = dispatch.IMPLEMENTATIONS["triton"].why_not_attention
    key = self_test.attention_key(gpu, BF16, (7, 7), 32)
    monkeypatch.setattr(self_test, "_results", {key: None})
    assert why_not(setting, attention) is None
    assert "no dropout" in why_not(setting, attention._replace(dropout=0.1))
    assert "CUDA" in why_not(setting._replace(device=cpu), attention)
    assert "subclass" in why_not(setting._replace(is_exact_tensor=False), attention)
    assert dispatch.choose_attention(setting, attention)[1] == "triton"
    monkeypatch.setattr(self_test, "_results", {key: "it errs"})
    assert dispatch.choose_attention(setting, attention)[1] == "sdpa"
    assert dispatch.choose_attention(setting._replace(device=cpu), attention)[1] == "reference"


def test_the_machine_is_asked_once_in_a_compiled_graph(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))

    @torch.compile(backend="eager", fullgraph=True)
    def add_one_on_old_devices(x):
        return x if why_not(torch.device("cuda", 0), F32, 32, 0.0) is None else x + 1

    assert add_one_on_old_devices(torch.zeros(1)) == 1


def test_by_name_through_the_dispatch():
    tensors = make_inputs((3, 4), (4, 4), 1, 16, F32)
    arguments = dict(num_heads=1, window_size=(4, 4), scale=0.25)
    found = dispatch.window_attention(*tensors, **arguments, backend="triton")
    expected = dispatch.window_attention(*tensors, **arguments, backend="reference")
    assert found.grad_fn.name() == "_WindowAttentionBackward"
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_compiled_for_gpus_that_are_not_here():
    """In registers but for a few numbers, and in the shared memory that the smallest GPUs have."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    script = Path(__file__).parent / "compile_attention.py"
    command = [sys.executable, str(script), "bfloat16", "32", "80", "90", "100"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines[::3]] == list(launch.LAUNCHES)
    for name, capability, registers, stack, shared in lines:
        spilled = 160 if capability == "100" else 64
        assert int(registers) <= 255 and int(stack) <= spilled, (name, registers, stack)
        assert int(shared) <= 99 * 2**10, (name, shared)
