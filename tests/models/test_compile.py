"""The backbones under `torch.compile`: one graph for images of all sizes."""

import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from swin_mm.models import SwinTransformer, SwinTransformerV2

# Divisible by patch, window and merging or not; stages of many windows, of one, and between.
SIZES = [(97, 141), (64, 64), (224, 224), (112, 448), (28, 28), (130, 75), (20, 35)]
# Compiling takes seconds a block, so that there are few.
SMALL = dict(embed_dims=8, depths=(2,), num_heads=(2,), strides=(4,), out_indices=(0,))
TWO_STAGES = dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2), strides=(4, 2), out_indices=(1,))


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def outputs_and_gradients(model, image, training):
    torch.manual_seed(0)
    with torch.set_grad_enabled(training):
        maps = model(image)
    if not training:
        return maps
    loss = sum((found * torch.randn(found.shape)).sum() for found in maps)
    return (*maps, *torch.autograd.grad(loss, list(model.parameters())))


def assert_compiled_equals_eager(compiled, model, image, training):
    found = outputs_and_gradients(compiled, image, training)
    expected = outputs_and_gradients(model, image, training)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "arguments", "backend", "training"),
    [
        # What backward traces is compiled ahead of time only.
        (SwinTransformer, SMALL, "aot_eager", True),
        (SwinTransformer, TWO_STAGES, "eager", False),
        (SwinTransformerV2, SMALL | dict(context_scales=("window", 2, "global")), "eager", True),
    ],
    ids=["v1-training", "v1-stages", "v2-context-training"],
)
def test_one_graph_for_all_sizes(backbone, arguments, backend, training):
    """No graph break and no recompilation."""
    torch.manual_seed(0)
    model = backbone(**arguments, drop_path_rate=0.0).train(training)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, dynamic=True, fullgraph=True)
    assert_compiled_equals_eager(compiled, model, torch.randn(2, 3, 101, 203), training)
    assert counter.frame_count > 0
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in SIZES:
            assert_compiled_equals_eager(compiled, model, torch.randn(3, 3, *size), training)


@pytest.mark.slow
def test_with_every_option_in_one_graph():
    """Stochastic depth, dropout, checkpointing, position embedding, mixed precision."""
    torch.manual_seed(0)
    model = SwinTransformer(
        **SMALL | dict(depths=(1,)),
        drop_path_rate=0.3,
        drop_rate=0.1,
        attn_drop_rate=0.1,
        use_abs_pos_embed=True,
        with_cp=True,
        frozen_stages=0,
    )
    compiled = torch.compile(model, backend="aot_eager", dynamic=True, fullgraph=True)
    for size in ((97, 141), (64, 112)):
        with torch.autocast("cpu", torch.bfloat16):
            maps = compiled(torch.randn(2, 3, *size))
        sum(found.sum() for found in maps).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("dynamic", [True, False], ids=["any-size", "one-size"])
def test_code_that_inductor_writes(dynamic):
    torch.manual_seed(0)
    model = SwinTransformer(
        embed_dims=8, depths=(2,), num_heads=(2,), strides=(4,), out_indices=(0,), drop_path_rate=0
    ).eval()
    compiled = torch.compile(model, dynamic=dynamic, fullgraph=True)
    for size in ((97, 141), (56, 28)) if dynamic else ((64, 64),):
        assert_compiled_equals_eager(compiled, model, torch.randn(2, 3, *size), training=False)
