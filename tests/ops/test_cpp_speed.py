"""Whether C++ is as fast as PyTorch: measured once, kept, and a reason where it is not."""

import json

import pytest
import torch

from swin_mm.ops import dispatch
from swin_mm.ops import linear as linear_ops
from swin_mm.ops import mlp as mlp_ops
from swin_mm.ops.cpp import build, linear, speed

pytestmark = pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")
MEASURED = speed._speed_refusal  # the tests' fixture puts another in its place


@pytest.fixture
def afresh(monkeypatch, tmp_path):
    """Nothing is known of this machine; libraries stay where they are."""
    library = build.library_path
    monkeypatch.setattr(speed, "_speed_refusal", MEASURED)
    monkeypatch.setattr(speed, "library_path", lambda name: tmp_path / library(name).name)
    MEASURED.cache_clear()
    yield tmp_path
    MEASURED.cache_clear()


def pretend(monkeypatch, *times):
    calls = []
    monkeypatch.setattr(speed, "_time_in_turn", lambda *works: calls.append(1) or list(times))
    return calls


def test_both_do_the_same_work():
    ours, theirs = (work() for work in speed.TRIALS["linear"]())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6 * theirs.abs().max().item())


@pytest.mark.parametrize("name", speed.TRIALS)
def test_what_is_measured_is_kept(name, afresh, monkeypatch):
    state = torch.get_rng_state()
    speed.speed_refusal(name)
    (path,) = afresh.iterdir()
    assert all(0.01 < ms < 60_000 for ms in json.loads(path.read_text()).values())
    assert torch.equal(torch.get_rng_state(), state)
    MEASURED.cache_clear()
    calls = pretend(monkeypatch, 1.0, 1.0)
    speed.speed_refusal(name)
    assert not calls


def test_slower_code_is_passed_over_with_the_reason(afresh, monkeypatch):
    pretend(monkeypatch, 31.0, 8.0)
    reason = speed.speed_refusal("window_attention")
    assert "31.0 ms here, PyTorch 8.0" in reason and str(afresh) in reason
    rows = {row[0]: row[1:] for row in dispatch.explain()}
    name, why = rows["window_attention, cpu training"]
    assert name != "cpp" and reason in why
    x, weight, bias = torch.randn(300, 16), torch.randn(16, 16), torch.randn(16)
    monkeypatch.setattr(linear, "_run_forward", None)  # would raise
    linear_ops.linear(x, weight, bias)
    mlp_ops.mlp_with_residual(x, weight, bias, weight, bias)
    with pytest.raises(TypeError):
        mlp_ops.mlp_with_residual(x, weight, bias, weight, bias, backend="cpp")


def test_faster_code_is_taken(afresh, monkeypatch):
    pretend(monkeypatch, 8.0, 31.0)
    assert speed.speed_refusal("linear") is None
    assert ("linear and mlp, cpu", "cpp", "first choice") in dispatch.explain()


def test_what_explain_says_of_slower_layers(afresh, monkeypatch):
    pretend(monkeypatch, 31.0, 8.0)
    rows = {row[0]: row[1:] for row in dispatch.explain()}
    assert rows["linear and mlp, cpu"] == ("PyTorch", speed.speed_refusal("linear"))


def test_another_number_of_threads_is_another_trial(afresh, monkeypatch):
    calls, threads = pretend(monkeypatch, 1.0, 2.0), torch.get_num_threads()
    try:
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            speed.speed_refusal("linear")
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 2 == len(list(afresh.iterdir()))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"cpp_ms": "x", "pytorch_ms": 1}'])
def test_a_damaged_record_is_measured_again(text, afresh, monkeypatch):
    calls = pretend(monkeypatch, 1.0, 2.0)
    speed.speed_refusal("linear")
    (path,) = afresh.iterdir()
    path.write_text(text)
    MEASURED.cache_clear()
    assert speed.speed_refusal("linear") is None and len(calls) == 2
    assert json.loads(path.read_text()) == {"cpp_ms": 1.0, "pytorch_ms": 2.0}


def test_a_folder_that_cannot_be_written(afresh, monkeypatch):
    monkeypatch.setattr(speed, "library_path", lambda name: afresh / "missing" / "linear.so")
    pretend(monkeypatch, 3.0, 2.0)
    assert "3.0 ms here" in speed.speed_refusal("linear")


def test_no_gradient_is_asked_for_under_inference_mode(afresh):
    with torch.inference_mode():
        speed.speed_refusal("window_attention")
