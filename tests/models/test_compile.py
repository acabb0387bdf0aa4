"""The backbone under `torch.compile`: one graph, and hardly a recompilation as sizes change."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from swin_mm.models import SwinTransformer

# Divisible by patch, window and merging or not, as multi-scale batches are; never a map of a
# single window, for which PyTorch compiles anew.
SIZES = [(197, 141), (224, 224), (130, 175), (224, 448), (201, 203), (160, 196)]


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_one_recompilation_at_most_over_many_sizes(training):
    torch.manual_seed(0)
    model = SwinTransformer(
        embed_dims=8, depths=(2, 2, 2), num_heads=(1, 2, 4), strides=(4, 2, 2), out_indices=(0, 2)
    )
    model.train(training)
    for block in model.modules():  # compare the same draw: none
        if hasattr(block, "drop_prob"):
            block.drop_prob = 0.0
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, dynamic=True, fullgraph=True)
    for size in SIZES:
        image = torch.randn(2, 3, *size)
        with torch.set_grad_enabled(training):
            for found, expected in zip(compiled(image), model(image), strict=True):
                torch.testing.assert_close(found, expected)
    assert 1 <= counter.frame_count <= 2  # the first, and one more
