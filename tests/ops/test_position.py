"""Log-spaced relative positions against timm's, and by hand."""

import math

import pytest
import torch
from timm.models.swin_transformer_v2 import WindowAttention

from swin_mm.ops.position import log_spaced_offsets
from swin_mm.ops.window import relative_position_index


@pytest.mark.parametrize("unit", [(0, 0), (12, 12), (4, 6)], ids=str)
@pytest.mark.parametrize("window", [(8, 8), (24, 24), (5, 7), (1, 6)], ids=str)
def test_offsets_are_those_of_timm(window, unit):
    stock = WindowAttention(8, window, num_heads=1, pretrained_window_size=unit)
    found = log_spaced_offsets(window, unit if unit[0] else window)
    torch.testing.assert_close(found, stock.relative_coords_table.flatten(0, 2))
    assert torch.equal(relative_position_index(window), stock.relative_position_index)


def test_offsets_by_hand():
    """Window (1, 3): the farthest tokens are 8 eighths apart, the others 4."""
    near, far = math.log2(5) / 3, math.log2(9) / 3
    expected = torch.tensor([[0, -far], [0, -near], [0, 0], [0, near], [0, far]])
    torch.testing.assert_close(log_spaced_offsets((1, 3), (1, 3)), expected)
    double = torch.tensor([0.0, math.log2(17) / 3])  # twice as far as in training
    torch.testing.assert_close(log_spaced_offsets((1, 3), (1, 2))[-1], double)


def test_offsets_are_shared_and_made_in_inference_mode_serve_training():
    with torch.inference_mode():
        made = log_spaced_offsets((9, 9), (9, 9))
    assert not made.is_inference()
    assert log_spaced_offsets((9, 9), (9, 9)) is made
