"""`psamask`: turns per-pixel maps of relative positions into maps of absolute ones."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from swin_mm.compat.mmcv_ext.tensors import add_gradients

# mmcv's numbering of `psa_type`: a pixel's map says how it collects from the others, or how it
# distributes to them.
COLLECT, DISTRIBUTE = 0, 1


def psamask_forward(input: Tensor, output: Tensor, **options: Any) -> None:
    """Writes what `_move` gives."""
    output.copy_(_move(input, **options))


def psamask_backward(grad_output: Tensor, grad_input: Tensor, **options: Any) -> None:
    """Gradient by the maps."""
    zeros = torch.zeros_like(grad_input)
    add_gradients(partial(_move, **options), (zeros,), grad_output, (grad_input,))


def _move(
    input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> Tensor:
    """Moves each pixel's map, which is centred on it, to the feature map's own coordinates.

    `input`, `(B, h_mask * w_mask, H, W)`, has for each pixel a map of its surroundings, in which
    the pixel itself is at row `half_h_mask` and column `half_w_mask`.

    Returns:
        `(B, H * W, H, W)`. `COLLECT`: the pixel is in the last two axes, the other pixel in axis 1;
        `DISTRIBUTE`: the reverse. 0 beyond the pixel's map.
    """
    maps = input.unflatten(1, (h_mask, w_mask))  # (B, h_mask, w_mask, H, W)
    h, w = (torch.arange(side, device=input.device) for side in (h_feature, w_feature))
    rows = h[:, None] - h + half_h_mask  # (H, H), of the other pixel in the pixel's map
    columns = w[:, None] - w + half_w_mask
    row_ok = (rows >= 0) & (rows < h_mask)
    column_ok = (columns >= 0) & (columns < w_mask)
    moved = maps[
        :,
        rows.clamp(0, h_mask - 1)[:, None, :, None],
        columns.clamp(0, w_mask - 1)[None, :, None, :],
        h[:, None],
        w,
    ]  # (B, y, x, h, w)
    moved = moved * (row_ok[:, None, :, None] & column_ok[None, :, None, :])
    if psa_type == DISTRIBUTE:
        moved = moved.permute(0, 3, 4, 1, 2)
    return moved.flatten(1, 2)
