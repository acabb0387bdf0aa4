"""Kernels that go by rows: values and gradients against the definitions in float64.

Without a GPU the kernels run in Triton's interpreter, on small maps (see `tests/conftest.py`);
with one, the same tests run compiled.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swin_mm.ops import reference, self_test
from swin_mm.ops.reference import Branch, Norm
from swin_mm.ops.setting import setting_of
from swin_mm.ops.triton.support import why_not_rows

triton = pytest.importorskip("triton")
from swin_mm.ops.triton import launch, operators, rows, tile  # noqa: E402  (needs Triton)
from swin_mm.ops.triton import mlp as triton_mlp  # noqa: E402

HAS_GPU = torch.cuda.is_available() and not launch.IS_INTERPRETED
DEVICE = "cuda" if HAS_GPU else "cpu"
pytestmark = [pytest.mark.gpu] if HAS_GPU else []
if not HAS_GPU and not launch.IS_INTERPRETED:
    pytest.skip("neither a GPU nor Triton's interpreter", allow_module_level=True)

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
KEEP_PROB = 0.6


def branch_of(t):
    return Branch(t["value"], t.get("branch_bias"), t.get("noise"), KEEP_PROB)


def norm_of(t):
    return Norm(t["weight"], t["bias"], 1e-5)


BACKENDS = {"triton": operators, "reference": reference}
# What computes outputs from named tensors, in a dtype and by a backend.
OPERATORS = {
    "add_norm": lambda t, dtype, backend: BACKENDS[backend].add_norm(
        t.get("x"),
        branch_of(t) if "value" in t else None,
        norm_of(t) if "weight" in t else None,
        dtype,
    ),
    "norm_add": lambda t, dtype, backend: BACKENDS[backend].norm_add(
        t["x"], branch_of(t), norm_of(t), dtype
    ),
    "merge_norm": lambda t, dtype, backend: [
        BACKENDS[backend].merge_norm(t["x"], norm_of(t), dtype)
    ],
    "mlp": lambda t, dtype, backend: [
        BACKENDS[backend].mlp(t["x"], t["weight1"], t.get("bias1"), t["weight2"], dtype)
    ],
}
BRANCH, NORM = ("value", "branch_bias"), ("weight", "bias")
# operator, tensors, (B, H, W, C), dtypes of the map, of the branch, and of the result
CASES = {
    "add_norm": ("add_norm", ("x", *BRANCH, *NORM), (2, 3, 5, 24), F32, BF16, BF16),
    "add_norm-drop": ("add_norm", ("x", *BRANCH, "noise", *NORM), (5, 2, 3, 24), F32, F16, F16),
    "add_norm-no-bias": ("add_norm", ("x", "value", *NORM), (2, 3, 5, 96), F32, F32, F32),
    "add_norm-narrow": ("add_norm", ("x", *BRANCH, *NORM), (2, 3, 5, 33), BF16, BF16, BF16),
    "norm-alone": ("add_norm", ("x", *NORM), (1, 7, 9, 48), F32, F32, BF16),
    "norm-of-branch": ("add_norm", (*BRANCH, *NORM), (2, 5, 7, 16), F32, F16, F32),
    "add-alone": ("add_norm", ("x", *BRANCH, "noise"), (4, 3, 2, 40), F32, BF16, F32),
    "norm_add": ("norm_add", ("x", *BRANCH, *NORM), (2, 3, 5, 24), F32, BF16, BF16),
    "norm_add-drop": ("norm_add", ("x", *BRANCH, "noise", *NORM), (5, 2, 3, 24), F32, F16, F16),
    "norm_add-one": ("norm_add", ("x", "value", "noise", *NORM), (3, 3, 5, 33), F32, F32, F32),
    "merge_norm": ("merge_norm", ("x", *NORM), (2, 4, 6, 12), F32, F32, BF16),
    "merge_norm-odd": ("merge_norm", ("x", *NORM), (2, 5, 3, 7), F16, F16, F16),
    "merge_norm-row": ("merge_norm", ("x", *NORM), (1, 1, 5, 16), F32, F32, F32),
    "mlp": ("mlp", ("x", "weight1", "bias1", "weight2"), (2, 3, 7, 16), BF16, BF16, BF16),
    "mlp-no-bias": ("mlp", ("x", "weight1", "weight2"), (1, 5, 7, 40), F32, F32, F32),
    "mlp-cast": ("mlp", ("x", "weight1", "bias1", "weight2"), (1, 2, 3, 9), F32, F32, F16),
}


def make_tensors(operator, names, shape, map_dtype, branch_dtype, seed=0):
    """Leaves; parameters are float32 and far from their initialisation."""
    generator = torch.Generator().manual_seed(seed)
    channels = shape[-1]
    width = 4 * channels if operator == "merge_norm" else channels
    shapes = {
        "x": shape,
        "value": shape,
        "branch_bias": (channels,),
        "weight": (width,),
        "bias": (width,),
        "weight1": (3 * channels, channels),
        "bias1": (3 * channels,),
        "weight2": (channels + 2, 3 * channels),
    }
    tensors = {}
    for name in names:
        if name == "noise":
            tensors[name] = torch.rand(shape[0], generator=generator).to(DEVICE)
            continue
        tensor = torch.randn(shapes[name], generator=generator)
        dtype = {"x": map_dtype, "value": branch_dtype}.get(name, F32)
        tensors[name] = tensor.to(DEVICE, dtype).requires_grad_()
    return tensors


def run(operator, tensors, dtype, backend, seed=1):
    """Outputs, and gradients of all leaves."""
    outs = [out for out in OPERATORS[operator](tensors, dtype, backend) if out is not None]
    generator = torch.Generator().manual_seed(seed)
    directions = [torch.randn(out.shape, generator=generator).to(out) for out in outs]
    leaves = {name: t for name, t in tensors.items() if t.requires_grad}
    grads = torch.autograd.grad(outs, list(leaves.values()), directions)
    found = {f"out{i}": out for i, out in enumerate(outs)}
    return found | dict(zip(leaves, grads, strict=True))


def to_double(tensors):
    return {
        name: t.detach().double().requires_grad_(t.requires_grad) for name, t in tensors.items()
    }


def assert_within_twice_the_reference(operator, tensors, dtype):
    found = run(operator, tensors, dtype, "triton")
    stock = run(operator, tensors, dtype, "reference")
    expected = run(operator, to_double(tensors), torch.float64, "reference")
    for name, value in found.items():
        assert value.dtype == stock[name].dtype, name
        error = (value.double() - expected[name]).norm()
        budget = (stock[name].double() - expected[name]).norm()
        # The definition may be right to the last bit: half of one is granted.
        slack = expected[name].norm() * torch.finfo(value.dtype).eps / 2
        assert error <= 2 * budget + slack, f"{name}: {error=}, {budget=}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(case):
    operator, names, shape, map_dtype, branch_dtype, dtype = case
    tensors = make_tensors(operator, names, shape, map_dtype, branch_dtype)
    assert_within_twice_the_reference(operator, tensors, dtype)


@settings(max_examples=200 if HAS_GPU else 25, deadline=None, derandomize=not HAS_GPU)
@given(st.data())
def test_any_problem(data):
    largest = 40 if HAS_GPU else 6
    operator, names = data.draw(st.sampled_from([case[:2] for case in CASES.values()]), "operator")
    channels = data.draw(st.integers(1, 600 if HAS_GPU else 70), "channels")
    sides = [data.draw(st.integers(1, largest), "side") for _ in range(2)]
    dtypes = [data.draw(st.sampled_from([F32, F16, BF16]), "dtype") for _ in range(2)]
    shape = (data.draw(st.integers(1, 3), "batch"), *sides, channels)
    seed = data.draw(st.integers(0, 2**32), "seed")
    tensors = make_tensors(operator, names, shape, *dtypes, seed=seed)
    result = data.draw(st.sampled_from([F32, F16, BF16]), "result")
    assert_within_twice_the_reference(operator, tensors, result)


ONE_OF_EACH = {
    name: CASES[name] for name in ("add_norm-drop", "norm_add-drop", "merge_norm", "mlp")
}


def tensors_of(case):
    operator, names, shape, map_dtype, branch_dtype, dtype = case
    return operator, make_tensors(operator, names, shape, map_dtype, branch_dtype), dtype


@pytest.fixture
def few_programs(monkeypatch):
    """Programs of several tiles each, and several of them."""
    monkeypatch.setattr(rows, "FORWARD_TILE", 64)
    monkeypatch.setattr(rows, "BACKWARD_TILE", 64)
    monkeypatch.setattr(rows, "count_processors", lambda device: 1)
    monkeypatch.setattr(rows, "PROGRAMS_PER_PROCESSOR", 3)
    monkeypatch.setattr(triton_mlp, "BLOCK_R", 4)
    monkeypatch.setattr(triton_mlp, "BLOCK_C", 16)


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_sums_of_several_programs(case, few_programs):
    assert_within_twice_the_reference(*tensors_of(case))
    operator, tensors, dtype = tensors_of(case)
    first, second = (run(operator, tensors, dtype, "triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)  # bit for bit


@pytest.mark.parametrize("channels", [1024, 4096])
def test_the_widest_rows(channels):
    tensors = make_tensors("add_norm", ("x", *NORM), (1, 1, 3, channels), F32, F32)
    assert_within_twice_the_reference("add_norm", tensors, F32)


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter's NumPy
@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_what_is_not_finite_stays_so(case, number):
    """At the same places as by the definition; other rows are left alone."""
    operator, tensors, dtype = tensors_of(case)
    with torch.no_grad():
        tensors["x"][0, 0, 1, 3] = number
        if "value" in tensors:
            tensors["value"][0, 0, 0, 2] = number
    with torch.no_grad():
        found, expected = (
            list(OPERATORS[operator](tensors, dtype, backend))
            for backend in ("triton", "reference")
        )
    for a, b in zip(found, expected, strict=True):
        assert not b.isfinite().all()
        assert torch.equal(a.isfinite(), b.isfinite())
        assert torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_strided_maps(case):
    operator, tensors, dtype = tensors_of(case)
    expected = run(operator, tensors, dtype, "triton")
    for name in ("x", "value"):
        if name in tensors:
            around = torch.full((*tensors[name].shape[:3], 91), torch.nan, device=DEVICE)
            around = around.to(tensors[name].dtype)
            around[..., 3 : 3 + tensors[name].shape[-1]] = tensors[name].detach()
            strided = around[..., 3 : 3 + tensors[name].shape[-1]]
            tensors[name] = strided.detach().requires_grad_()
    found = run(operator, tensors, dtype, "triton")
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_an_empty_batch(case):
    operator, names, shape, *dtypes, dtype = case
    tensors = make_tensors(operator, names, (0, *shape[1:]), *dtypes)
    found = run(operator, tensors, dtype, "triton")
    expected = run(operator, tensors, dtype, "reference")
    for name, value in found.items():
        assert value.shape == expected[name].shape and not value.any(), name


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_one_gradient_at_a_time(case):
    """As in frozen stages, and where one of two outputs is used."""
    operator, tensors, dtype = tensors_of(case)
    leaves = [name for name, t in tensors.items() if t.requires_grad]
    for wanted in leaves:
        some = {n: t.detach().requires_grad_(n == wanted) for n, t in tensors.items()}
        for index in range(2 if operator in ("add_norm", "norm_add") else 1):
            grads = []
            for backend in ("triton", "reference"):
                out = OPERATORS[operator](some, dtype, backend)[index]
                if index == 1 or wanted not in NORM or operator != "add_norm":
                    grads += torch.autograd.grad(out.float().square().sum(), some[wanted])
            if grads:  # the sum knows no norm
                bound = 0.02 * grads[1].float().abs().max().item()
                torch.testing.assert_close(*grads, rtol=0, atol=bound)
                assert grads[1].any()


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_gradients_of_gradients_are_refused(case):
    operator, tensors, dtype = tensors_of(case)
    loss = OPERATORS[operator](tensors, dtype, "triton")[0].float().square().sum()
    with pytest.raises(RuntimeError, match="attn_backend='reference' for create_graph=True"):
        torch.autograd.grad(loss, tensors["x"], create_graph=True)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [F32, F16, BF16] if HAS_GPU else [BF16], ids=str)
@pytest.mark.parametrize("channels", [96, 768] if HAS_GPU else [40])
def test_a_self_test_passes(operator, dtype, channels, monkeypatch, caplog):
    monkeypatch.setattr(self_test, "_results", {})
    if not HAS_GPU:
        monkeypatch.setattr(self_test, "ROW_ELEMENTS", 1)
    device = torch.zeros(1, device=DEVICE).device
    work = self_test.RowKernel(operator, channels, device, F32, dtype)
    assert self_test.why_not_rows(work) is None, caplog.text


def test_rows_too_wide_and_transforms_are_refused():
    x = torch.zeros(2, device=DEVICE)
    setting = setting_of(x, needs_grad=False)
    assert why_not_rows(setting, 4096) is None
    assert "up to 4096 channels, got 4097" in why_not_rows(setting, 4097)

    def transformed(y):
        assert "torch.func" in why_not_rows(setting_of(y, needs_grad=False), 4)
        return y

    torch.func.vmap(transformed)(torch.ones(2))


def test_without_gpu_and_interpreter(monkeypatch):
    monkeypatch.setattr(tile, "IS_INTERPRETED", False)
    setting = setting_of(torch.zeros(2), needs_grad=False)
    assert "run on CUDA, the tensors are on cpu" in why_not_rows(setting, 4)


@pytest.mark.slow
def test_compiled_for_gpus_that_are_not_here():
    """No kernel keeps anything in memory for want of registers, or divides roughly.

    A plain division on a GPU may err by two units in the last place, which no interpreter shows.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    script = Path(__file__).parent / "compile_rows.py"
    command = [sys.executable, str(script), "96", "80", "90", "100"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * 8
    for line in lines:
        stack, _, rough_divisions = map(int, line.split()[-3:])
        assert not stack and not rough_divisions, line
