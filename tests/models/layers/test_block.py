"""Which operators a block runs on the CPU."""

import pytest
import torch
from mmcv.cnn.bricks import DropPath

from swin_mm.models import SwinTransformer
from swin_mm.ops.cpp import build
from swin_mm.ops.cpp import linear as cpp

ONE_BLOCK = dict(embed_dims=32, depths=(1,), num_heads=(2,), strides=(4,), out_indices=(0,))


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of the MLP in C++."""
    seen, run = [], cpp.mlp
    monkeypatch.setattr(cpp, "mlp", lambda *given: seen.append(1) or run(*given))
    return seen


def build_model(**arguments):
    torch.manual_seed(0)
    return SwinTransformer(**(ONE_BLOCK | dict(drop_path_rate=0.0) | arguments)).train()


@pytest.mark.skipif(build.find_compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("backend, runs", [("auto", 1), ("cpp", 1), ("sdpa", 0), ("reference", 0)])
def test_the_mlp_is_where_attn_backend_says(backend, runs, calls):
    model, plain = build_model(attn_backend=backend), build_model(attn_backend="reference")
    image = torch.randn(1, 3, 100, 132)
    torch.testing.assert_close(model(image), plain(image))
    assert len(calls) == runs


@pytest.mark.parametrize("change", ["hook", "tanh", "dropout"])
def test_an_mlp_that_is_to_be_seen_or_is_another(change, calls):
    model = build_model(**({"drop_rate": 0.5} if change == "dropout" else {}))
    mlp = model.layers[0].blocks[0].mlp
    seen = []
    if change == "hook":
        mlp.fc1.register_forward_hook(lambda *given: seen.append(1))
    if change == "tanh":
        mlp.act = torch.nn.GELU(approximate="tanh")
    model(torch.randn(1, 3, 100, 132))
    assert not calls and len(seen) == (change == "hook")


@pytest.mark.parametrize("change", [{}, dict(attn_drop_rate=0.3), dict(drop_rate=0.3)])
def test_dropped_samples_take_no_work_where_no_other_number_is_drawn(change, monkeypatch):
    """A branch that draws numbers of its own draws them for all samples, as mmdet's does."""
    model = build_model(drop_path_rate=0.9999, **change)
    block = model.layers[0].blocks[0]
    block.drop_path = DropPath(0.9999).train()
    sizes = []
    block.mlp.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    model(torch.randn(3, 3, 64, 64))
    assert sizes == [3 if change else 0]
