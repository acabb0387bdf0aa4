"""Which operators a block runs on the CPU."""

import pytest
import torch
from mmcv.cnn.bricks import DropPath

from swin_mm.models import SwinTransformer

ONE_BLOCK = dict(embed_dims=32, depths=(1,), num_heads=(2,), strides=(4,), out_indices=(0,))


def build_model(**arguments):
    torch.manual_seed(0)
    return SwinTransformer(**(ONE_BLOCK | dict(drop_path_rate=0.0) | arguments)).train()


@pytest.mark.parametrize("change", [{}, dict(attn_drop_rate=0.3), dict(drop_rate=0.3)])
def test_dropped_samples_take_no_work_where_no_other_number_is_drawn(change, monkeypatch):
    """A branch that draws numbers of its own draws them for all samples, as mmdet's does."""
    model = build_model(drop_path_rate=0.9999, **change)
    block = model.layers[0].blocks[0]
    block.drop_path = DropPath(0.9999).train()
    sizes, forward = [], type(block.mlp).forward

    def record(module, x, *arguments, **options):
        sizes.append(len(x))
        return forward(module, x, *arguments, **options)

    monkeypatch.setattr(type(block.mlp), "forward", record)
    model(torch.randn(3, 3, 64, 64))
    assert sizes == [3 if change else 0]


def test_a_hook_sees_every_sample_of_the_batch():
    model = build_model(drop_path_rate=0.9999)
    block = model.layers[0].blocks[0]
    block.drop_path = DropPath(0.9999).train()
    sizes = []
    block.mlp.fc1.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    model(torch.randn(3, 3, 64, 64))
    assert sizes == [3]


def test_dropout_that_stays_on_in_evaluation():
    """Monte Carlo dropout: `eval`, then dropout back on."""
    model, x = build_model(drop_rate=0.3).eval(), torch.randn(2, 3, 36, 28)
    with torch.no_grad():
        assert torch.equal(model(x)[0], model(x)[0])
        model.layers[0].blocks[0].mlp.drop.train()
        assert not torch.equal(model(x)[0], model(x)[0])
