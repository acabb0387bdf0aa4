"""Fits position parameters to another window and another image size."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError


def resize_bias_table(table: Tensor, window_size: tuple[int, int]) -> Tensor:
    """Interpolates a table of relative position biases to another window.

    Args:
        table: `((2*Wh-1) * (2*Ww-1), nH)`, a row for each offset between two tokens; of a square
            window, or of `window_size`.
        window_size: The wanted `(Wh, Ww)`, in tokens.

    Returns:
        The table for `window_size`, of the same dtype; `table` itself where the rows agree.

    Raises:
        CheckpointError: When the rows of `table` do not tell its window.

    Source:
        `load_pretrained` in `utils.py` of https://github.com/microsoft/Swin-Transformer: each head
        is an image of offsets, resized bicubically. The wanted window may be rectangular here.
    """
    rows = table.shape[0]
    target = (2 * window_size[0] - 1, 2 * window_size[1] - 1)
    if rows == target[0] * target[1]:
        return table
    side = isqrt(rows)
    if side * side != rows or side % 2 == 0:
        raise CheckpointError(
            f"a bias table of {rows} rows does not tell its window (a square one of side W has "
            f"(2W-1)^2 rows); use the window the checkpoint was made with, not {window_size}"
        )
    return _resize_grid(table.unflatten(0, (side, side)), target).flatten(0, 1)


def resize_position_embedding(embedding: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolates an absolute position embedding to another number of patches.

    Args:
        embedding: `(1, S*S, C)` of a square image, or of any image of `size`.
        size: The wanted `(Ph, Pw)`, in patches.

    Returns:
        `(1, Ph*Pw, C)`, of the same dtype; `embedding` itself where the sizes agree.

    Raises:
        CheckpointError: When `embedding` is not that of a square image.

    Source:
        `load_pretrained` in `utils.py` of https://github.com/microsoft/Swin-Transformer.
    """
    tokens = embedding.shape[1]
    if tokens == size[0] * size[1]:
        return embedding
    side = isqrt(tokens)
    if side * side != tokens:
        raise CheckpointError(
            f"a position embedding of {tokens} patches does not tell its height and width; use the "
            f"pretrain_img_size the checkpoint was made with, not one of {size} patches"
        )
    return _resize_grid(embedding[0].unflatten(0, (side, side)), size).flatten(0, 1).unsqueeze(0)


def _resize_grid(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes `(H, W, C)` to `(*size, C)` bicubically."""
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))  # CPU lacks half precision
    image = precise.permute(2, 0, 1).unsqueeze(0)  # (1, C, H, W)
    resized = F.interpolate(image, size, mode="bicubic", align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0).to(grid.dtype)
