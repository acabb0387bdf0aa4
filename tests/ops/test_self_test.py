"""Kernels that err on a device are not used there, those that do not are."""

import logging

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from swin_mm.heads.ops import nms
from swin_mm.ops import dispatch, reference, self_test
from swin_mm.ops.self_test import KernelKey, RowKernel
from swin_mm.ops.setting import Setting

pytest.importorskip("triton")
import triton.errors
import triton.runtime.interpreter

from swin_mm.ops.triton import launch, window_attention

if not launch.IS_INTERPRETED:
    pytest.skip("a GPU makes its own self-tests, in the tests of kernels", allow_module_level=True)

CPU, F16, F32 = torch.device("cpu"), torch.float16, torch.float32
KEY = KernelKey("sums", "PyTorch", CPU, ("8 channels",))


@pytest.fixture(autouse=True)
def a_gpu_without_results(monkeypatch):
    """The CPU is taken for a GPU; nothing has been tested yet, and self-tests are small."""
    monkeypatch.setattr(self_test, "is_gpu", lambda device: True)
    monkeypatch.setattr(self_test, "_results", {})
    monkeypatch.setattr(self_test, "ATTENTION_TOKENS", 1)
    monkeypatch.setattr(self_test, "ROW_ELEMENTS", 1)
    monkeypatch.setattr(nms, "SELF_TEST_BOXES", 20)


def double(tensors):
    return [2 * tensors["x"].square()]


def make_leaf():
    return {"x": torch.arange(1.0, 9).requires_grad_()}


class Wrong(torch.autograd.Function):
    """The right sum, and a gradient by a rule."""

    @staticmethod
    def forward(ctx, x, rule):
        ctx.save_for_backward(x)
        ctx.rule = rule
        return 2 * x * x

    @staticmethod
    def backward(ctx, grad):
        return ctx.rule(4 * ctx.saved_tensors[0] * grad), None


COUNTER = iter(range(1000))
FAULTS = {
    "output": (lambda t: [double(t)[0] * 1.001], "output 0 has an error of"),
    "gradient": (lambda t: [Wrong.apply(t["x"], lambda g: g * 1.001)], "gradient of x has an er"),
    "one-number": (lambda t: [Wrong.apply(t["x"], lambda g: g.index_fill(0, torch.tensor(7), 0))],)
    + ("gradient of x has an error of",),
    "nan": (lambda t: [Wrong.apply(t["x"], lambda g: g * torch.nan)], "an error of nan"),
    "infinity": (lambda t: [double(t)[0] / 0], "output 0 has an error of"),
    "unsteady": (
        lambda t: [Wrong.apply(t["x"], lambda g: g * (1 + next(COUNTER) % 2 * 2**-23))],
        "two runs give different numbers: gradient of x",
    ),
}


@pytest.mark.parametrize(("kernels", "reason"), FAULTS.values(), ids=FAULTS)
def test_faults_are_found(kernels, reason):
    assert reason in self_test.compare(make_leaf(), kernels, double)


def test_other_roundings_are_no_fault():
    assert (
        self_test.compare(make_leaf(), lambda t: [t["x"] * t["x"] + t["x"] * t["x"]], double)
        is None
    )


def test_a_result_is_kept_and_warned_of_once(caplog):
    calls = []

    def run():
        calls.append(1)
        return "it errs"

    for _ in range(3):
        assert self_test.why_not(KEY, run) == "self-test failed: it errs"
    other = KEY._replace(details=("16 channels",))
    assert self_test.why_not(other, run) == "self-test failed: it errs"
    assert self_test.why_not(KEY._replace(kernels="products"), lambda: None) is None
    assert len(calls) == 2
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for part in ("sums by PyTorch on cpu", "8 channels", "it errs", "`swin-mm doctor`"):
        assert part in record.getMessage()


@pytest.mark.parametrize(
    "error", [RuntimeError("no such\n  instruction"), triton.errors.TritonError()], ids=repr
)
def test_what_is_raised_is_a_reason(error, caplog):
    def run():
        raise error

    assert type(error).__name__ in self_test.why_not(KEY, run)
    assert "no such instruction" in caplog.text or not str(error)


def test_without_memory_the_next_use_tries_again(caplog):
    def run():
        raise torch.OutOfMemoryError("full")

    assert "no memory for a self-test" in self_test.why_not(KEY, run)
    assert self_test.why_not(KEY, lambda: None) is None and not caplog.records


def test_no_self_test_while_a_graph_is_captured(monkeypatch):
    gpu = KEY._replace(device=torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert "not self-tested there" in self_test.why_not(gpu, pytest.fail)
    monkeypatch.setattr(self_test, "_results", {gpu: None})
    assert self_test.why_not(gpu, pytest.fail) is None


def make_inputs(dtype=F16):
    random = torch.Generator().manual_seed(3)
    shapes = (1, 5, 6, 48), (1, 16, 16), (48,)
    return [torch.randn(s, generator=random).to(dtype).requires_grad_() for s in shapes]


def choose(needs_grad):
    """Name and reason of what `auto` takes."""
    setting = Setting(CPU, F16, needs_grad=needs_grad)
    return dispatch.choose_attention(setting, dispatch.Attention(16, (4, 4)))[1:]


def attend(tensors, backend="auto", **changes):
    """Where kernels do not serve, inference is SDPA's, and training on a CPU the reference's."""
    settings = dict(num_heads=1, window_size=(4, 4), shift_size=(2, 2), scale=0.25) | changes
    return dispatch.window_attention(*tensors, **settings, backend=backend)


@pytest.mark.slow
def test_attention_that_passes_serves(caplog):
    """And its self-test takes no random number, nor sees what the caller has set."""
    state = torch.get_rng_state()
    tensors = make_inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert attend(tensors).grad_fn is None
    assert list(self_test._results.values()) == [None] and not caplog.records
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    assert "WindowAttention" in attend(tensors).grad_fn.name()
    name, reason = choose(needs_grad=True)
    assert name == "triton" and "self-test passed" in reason


@pytest.mark.slow
def test_a_self_test_within_a_checkpointed_pass():
    """Its saved tensors are not the checkpoint's, which counts them."""
    tensors = make_inputs()
    out = checkpoint(attend, tensors, use_reentrant=False)
    grads = torch.autograd.grad(out.sum(), tensors)
    expected = torch.autograd.grad(attend(tensors, "triton").sum(), tensors)
    assert all(map(torch.equal, grads, expected))


class TooLarge(triton.errors.TritonError):
    pass


def raise_too_large(*_):
    raise TooLarge("out of resource: shared memory")


LIES = {
    "wrong": ("forward", lambda out: out * 1.01, "output 0 has an error"),
    "nan": ("forward", lambda out: out * torch.nan, "output 0 has an error of nan"),
    "raising": ("forward", raise_too_large, "TooLarge: out of resource: shared memory"),
    "bias": ("backward", lambda grads: (grads[0], grads[1] * 1.01, grads[2]), "position bias has"),
    "padding": ("backward", lambda grads: (*grads[:2], 0 * grads[2]), "gradient of padding has"),
    "unsteady": (
        "backward",
        lambda grads: (grads[0] + next(COUNTER), *grads[1:]),
        "two runs give different numbers: gradient of query, key and value",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("what", "lie", "reason"), LIES.values(), ids=LIES)
def test_attention_that_lies_does_not_serve(what, lie, reason, monkeypatch, caplog):
    honest = getattr(launch, what)
    monkeypatch.setattr(window_attention.launch, what, lambda *args: lie(honest(*args)))
    tensors = make_inputs()
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(attend(tensors), attend(tensors, "sdpa"))
    assert "WindowAttention" not in attend(tensors).grad_fn.name()
    (record,) = caplog.records
    assert reason in record.getMessage()
    name, why = choose(needs_grad=False)
    assert name == "sdpa" and "not triton: self-test failed: " in why and reason in why


@pytest.mark.slow
def test_kernels_that_fail_after_their_self_test(monkeypatch, caplog):
    """As with more heads than were tried."""
    tensors = make_inputs()
    attend(tensors)
    monkeypatch.setattr(window_attention.launch, "forward", raise_too_large)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(attend(tensors), attend(tensors, "sdpa"))
    (record,) = caplog.records
    assert "shared memory" in record.getMessage() and "after it" in record.getMessage()
    with pytest.raises(TooLarge):
        attend(tensors, "triton")


def test_compiled_code_starts_no_self_test(monkeypatch):
    torch._dynamo.reset()
    tensors = make_inputs()
    monkeypatch.setattr(self_test, "_test_attention", pytest.fail)
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(tensors), attend(tensors, "sdpa"))


@pytest.mark.slow
def test_compiled_code_takes_what_has_passed(monkeypatch):
    torch._dynamo.reset()
    tensors = make_inputs()
    attend(tensors)
    ran = []
    run = launch.forward
    monkeypatch.setattr(launch, "forward", lambda *args: ran.append(1) or run(*args))
    compiled = torch.compile(attend, backend="eager", fullgraph=True)
    assert torch.equal(compiled(tensors), attend(tensors, "triton")) and len(ran) == 2


@pytest.mark.slow
def test_compiled_code_recalls_results_of_float32():
    """They depend on how PyTorch multiplies, which no graph can ask."""
    torch._dynamo.reset()
    where = CPU, F32, (4, 4), 16
    assert self_test.why_not_attention(*where) is None

    @torch.compile(backend="eager", fullgraph=True)
    def add_one_where_refused(x):
        return x if self_test.why_not_attention(*where) is None else x + 1

    assert add_one_where_refused(torch.zeros(1)) == 0


def test_a_mode_sees_all_operators(monkeypatch):
    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **kwargs or {})

    monkeypatch.setattr(self_test, "_test_attention", pytest.fail)
    with torch.no_grad(), Watcher():
        assert torch.equal(attend(make_inputs()), attend(make_inputs(), "sdpa"))


OPERATORS = ("add_norm", "norm_add", "merge_norm", "mlp")


# What NVIDIA documents for the instructions that Triton takes, in units in the last place.
ROUGH = dict(create_fdiv=2, create_exp2=2, create_exp=2, create_erf=2, create_rsqrt=1.1)


def err(numbers: np.ndarray, most: float) -> np.ndarray:
    """Errors of float32 numbers by up to `most` units; of equal numbers, equal ones."""
    if numbers.dtype != np.float32:
        return numbers
    bits = np.ascontiguousarray(numbers).view(np.uint32).astype(np.uint64)
    share = (bits * 2654435761 >> 8 & 0xFFFF) / 0xFFFF * 2 - 1
    return (numbers * (1 + share * most * 2.0**-23)).astype(np.float32)


@pytest.fixture
def arithmetic_of_a_gpu(monkeypatch):
    """The interpreter errs as much as a GPU may."""
    builder = triton.runtime.interpreter.InterpreterBuilder

    def roughen(exact, most):
        def compute(self, *args):
            handle = exact(self, *args)
            handle.data = err(handle.data, most)
            return handle

        return compute

    for name, most in ROUGH.items():
        monkeypatch.setattr(builder, name, roughen(getattr(builder, name), most))


@pytest.mark.slow
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtypes", [(F32, torch.bfloat16), (F32, F32)], ids=str)
@pytest.mark.usefixtures("arithmetic_of_a_gpu")
def test_rough_kernels_by_rows_pass(operator, dtypes, monkeypatch):
    monkeypatch.setattr(self_test, "ROW_ELEMENTS", 10_000)
    assert self_test.why_not_rows(RowKernel(operator, 96, CPU, *dtypes)) is None


@pytest.mark.slow
@pytest.mark.usefixtures("arithmetic_of_a_gpu")
def test_rough_attention_passes():
    assert self_test.why_not_attention(CPU, F32, (4, 4), 16) is None


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtypes", [(F32, F16), (F32, F32)], ids=str)
def test_kernels_by_rows_pass(operator, dtypes, caplog):
    assert self_test.why_not_rows(RowKernel(operator, 24, CPU, *dtypes)) is None
    assert len(self_test._results) == 1 and not caplog.records


@pytest.mark.parametrize("operator", OPERATORS)
def test_kernels_by_rows_that_lie(operator, monkeypatch, caplog):
    honest = self_test._run_rows

    def lie(work, operators, tensors):
        outs = honest(work, operators, tensors)
        return outs if operators is reference else [out * 1.02 for out in outs]

    monkeypatch.setattr(self_test, "_run_rows", lie)
    assert "output 0 has an error" in self_test.why_not_rows(RowKernel(operator, 24, CPU, F32, F16))
    assert operator in caplog.text


def test_what_auto_takes_is_explained(monkeypatch):
    monkeypatch.setattr(self_test, "_test_attention", lambda *_: None)
    monkeypatch.setattr(self_test, "_test_rows", lambda work: None)
    monkeypatch.setattr(nms, "_test", lambda device: "it errs")
    rows = {row[0]: row[1:] for row in [*dispatch.explain_kernels(CPU), nms.explain(CPU)]}
    assert list(rows) == [f"{name}, cpu" for name in ("attention", *OPERATORS, "nms")]
    assert rows["mlp, cpu"] == ("triton", "self-test passed")
    assert rows["nms, cpu"] == ("torchvision", "self-test failed: it errs")
    assert rows["attention, cpu"][0] == "triton"
