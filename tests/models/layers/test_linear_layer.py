"""Linear layers of a block: dropout and stochastic depth keep their effect."""

import torch

from swin_mm.models.layers import SwinBlock, WindowAttention


def block(**arguments) -> SwinBlock:
    torch.manual_seed(0)
    attn = WindowAttention(24, 3, (4, 4), is_shifted=True, proj_drop_rate=0.3)
    cfg = dict(drop_rate=0.3, drop_path_rate=0.5, act_cfg=dict(type="GELU"))
    return SwinBlock(attn, 2.0, norm_cfg=dict(type="LN"), **{**cfg, **arguments})


def test_a_block_predicts_what_it_computes_for_gradients():
    """With a gradient wanted, each operator is PyTorch's own."""
    model, x = block().eval(), torch.randn(2, 9, 7, 24)
    with torch.no_grad():
        predicted = model(x)
    torch.testing.assert_close(predicted, model(x))


def test_drop_path_drops_the_whole_branch():
    model = block(drop_path_rate=0.999999).train()
    x = torch.randn(4, 9, 7, 24)
    assert torch.equal(model(x), x)


def test_dropout_that_stays_on_in_evaluation():
    """Monte Carlo dropout: `eval`, then dropout back on."""
    model, x = block().eval(), torch.randn(2, 9, 7, 24)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
        model.mlp.drop.train()
        assert not torch.equal(model(x), model(x))
