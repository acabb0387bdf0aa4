"""Window attention as a module; its numbers are tested through the backbones and `ops`."""

import pytest
import torch

from swin_mm.models.layers import CosineWindowAttention, WindowAttention


@pytest.mark.parametrize("layer", [WindowAttention, CosineWindowAttention])
def test_a_sequence_is_a_map_of_one_row(layer):
    """Shifted along the row only; every window hears of the far end through the context."""
    torch.manual_seed(0)
    attend = layer(768, 12, (1, 64), is_shifted=True, context_scales=("window", "global"))
    assert attend.shift_size == (0, 32)
    assert attend.context_mix.shape == (12, 64, 128)
    x = torch.randn(1, 1, 512, 768)
    changed = x.clone()
    changed[:, :, 300] += 1
    with torch.no_grad():
        assert torch.equal(attend(x)[:, :, :200], attend(changed)[:, :, :200])
        attend.context_mix.normal_()
        differs = (attend(x) != attend(changed)).any(-1)
    assert differs.all()


@pytest.mark.parametrize("layer", [WindowAttention, CosineWindowAttention])
def test_heads_that_do_not_divide_the_channels_are_refused(layer):
    with pytest.raises(ValueError, match="embed_dims must be divisible by heads"):
        layer(10, 3, (7, 7))
