"""Relative positions of Swin V2's continuous position bias."""

import math

import torch
from torch import Tensor

from swin_mm.ops.cache import cached

# Positions are scaled to [-8, 8] and then their logarithm to base 8 is taken.
# Source: microsoft/Swin-Transformer, models/swin_transformer_v2.py, WindowAttention.__init__.
POSITION_SCALE = 8


# A window for each of four stages; one table takes 18 KiB for a window of 24.
@cached(16)
def log_spaced_offsets(
    window_size: tuple[int, int],
    unit: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """Every relative position of two tokens of a window, in log-spaced coordinates.

    `unit` is `(h, w)` of the window whose farthest tokens are at `log2(9) / 3`, in tokens.

    Returns:
        `((2*Wh-1)*(2*Ww-1), 2)` float32, row and column of query minus key, in the order of
        `relative_position_index`. Eager calls share it: treat it as read-only.

    Source:
        Liu et al., Swin Transformer V2, 2022, equation 4, to the base of 8 and with offsets in
        units of an eighth of the window, as in microsoft/Swin-Transformer.
    """
    axes = []
    for side, unit_side in zip(window_size, unit, strict=True):
        offset = torch.arange(1 - side, side, device=device, dtype=torch.float32)
        offset = offset * POSITION_SCALE / max(unit_side - 1, 1)
        axes.append(offset.sign() * (offset.abs() + 1).log2() / math.log2(POSITION_SCALE))
    return torch.cartesian_prod(*axes)
