"""Windows on a channels-last map: padding, shift, partition, regions and relative positions.

The only definitions in the project. Maps are `(B, H, W, C)`; windows are `(B*nW, N, C)` with
`N = Wh*Ww`, windows and tokens in row-major order. Pairs are always `(h, w)`, in tokens.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to the score of a query and a key from different regions. Published weights were trained
# with this finite value, so it stays: -inf would give other numbers.
# Source: microsoft/Swin-Transformer, models/swin_transformer.py, SwinTransformerBlock.__init__.
MASK_VALUE = -100.0


def padded_size(size: tuple[int, int], window_size: tuple[int, int]) -> tuple[int, int]:
    """The smallest multiple of the window that holds `size`.

    Args:
        size: `(H, W)` in tokens.
        window_size: `(Wh, Ww)` in tokens.

    Returns:
        `(Hp, Wp)` in tokens.
    """
    (height, width), (win_h, win_w) = size, window_size
    return (height + win_h - 1) // win_h * win_h, (width + win_w - 1) // win_w * win_w


def window_partition(x: Tensor, window_size: tuple[int, int]) -> Tensor:
    """Cuts a map into windows.

    Args:
        x: `(B, Hp, Wp, C)`, sides divisible by the window.
        window_size: `(Wh, Ww)` in tokens.

    Returns:
        `(B*nW, N, C)`.

    Raises:
        ValueError: When a side is not divisible by the window.
    """
    win_h, win_w = window_size
    height, width = x.shape[1:3]
    if height % win_h or width % win_w:
        raise ValueError(
            f"window_partition needs sides divisible by {window_size=}, got {height} x {width}; "
            "pad the map to padded_size() first"
        )
    x = x.unflatten(2, (width // win_w, win_w)).unflatten(1, (height // win_h, win_h))
    # (B, Hp/Wh, Wh, Wp/Ww, Ww, C) -> (B, Hp/Wh, Wp/Ww, Wh, Ww, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)  # (B*nW, N, C)


def window_reverse(windows: Tensor, window_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Puts windows back into a map; the inverse of `window_partition`.

    Args:
        windows: `(B*nW, N, C)`.
        window_size: `(Wh, Ww)` in tokens.
        size: `(Hp, Wp)` of the map, in tokens.

    Returns:
        `(B, Hp, Wp, C)`.
    """
    (win_h, win_w), (height, width) = window_size, size
    rows, columns = height // win_h, width // win_w
    x = windows.unflatten(1, (win_h, win_w))  # (B*nW, Wh, Ww, C)
    x = x.unflatten(0, (x.shape[0] // (rows * columns), rows, columns))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, Hp, Wp, C)


def pad_bottom_right(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads a map with zeros at the bottom and the right.

    Args:
        x: `(B, H, W, C)`.
        size: `(Hp, Wp)` after padding, in tokens.

    Returns:
        `(B, Hp, Wp, C)`; `x` itself where nothing is missing.
    """
    height, width = x.shape[1:3]
    # Compiled code pads always: a branch on the sides would cost a recompilation for each case.
    if not torch.compiler.is_compiling() and (height, width) == tuple(size):
        return x
    return F.pad(x, (0, 0, 0, size[1] - width, 0, size[0] - height))


def pad_with(x: Tensor, size: tuple[int, int], value: Tensor | None) -> Tensor:
    """Pads a map at the bottom and the right with one token.

    Args:
        x: `(B, H, W, C)`.
        size: `(Hp, Wp)` after padding, in tokens.
        value: `(C,)`, the token to fill with; `None` fills with zeros. Gradients reach it.

    Returns:
        `(B, Hp, Wp, C)`.
    """
    height, width = x.shape[1:3]
    padded = pad_bottom_right(x, size)
    if value is None or padded is x:
        return padded
    # Padding (x - value) with zeros would round; a selection keeps real tokens bit for bit.
    rows = torch.arange(size[0], device=x.device) < height
    columns = torch.arange(size[1], device=x.device) < width
    is_real = (rows[:, None] & columns[None, :]).unsqueeze(-1)  # (Hp, Wp, 1)
    return torch.where(is_real, padded, value.to(x.dtype))


def region_ids(
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """Numbers the regions that a cyclic shift brings together in one window.

    After the roll by `-shift_size`, the last `Wh` rows hold two regions: the map's last rows
    and, in the final `shift_size` ones, the rows that wrapped around; columns alike.

    Args:
        size: `(Hp, Wp)` of the padded map, in tokens.
        window_size: `(Wh, Ww)` in tokens.
        shift_size: `(Sh, Sw)` in tokens; 0 on an axis leaves it one region.
        device: Where the result lives.

    Returns:
        `(nW, N)` int64: tokens of a window attend to each other when their ids are equal.
    """
    axis_ids = []
    for length, window, shift in zip(size, window_size, shift_size, strict=True):
        position = torch.arange(length, device=device)
        ids = (position >= length - window).long() + (position >= length - shift).long()
        axis_ids.append(ids if shift else torch.zeros_like(position))
    ids = axis_ids[0][:, None] * 3 + axis_ids[1][None, :]  # (Hp, Wp)
    return window_partition(ids[None, :, :, None], window_size).squeeze(-1)


def shift_mask(
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """The additive mask of shifted-window attention.

    Args:
        size: `(Hp, Wp)` of the padded map, in tokens.
        window_size: `(Wh, Ww)` in tokens.
        shift_size: `(Sh, Sw)` in tokens.
        device: Where the result lives.

    Returns:
        `(nW, N, N)` float32, 0 within a region and `MASK_VALUE` across regions. Eager calls share
        the result by size: treat it as read-only.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.2, "Efficient batch computation".
    """
    if torch.compiler.is_compiling():  # a cache would pin symbolic sizes to numbers
        return _shift_mask(size, window_size, shift_size, device)
    return _cached_shift_mask(size, window_size, shift_size, device)


def _shift_mask(size, window_size, shift_size, device) -> Tensor:
    ids = region_ids(size, window_size, shift_size, device)
    return (ids[:, :, None] != ids[:, None, :]).float() * MASK_VALUE


# Eight sizes hold the stages of two image sizes; one mask takes up to 13 MiB at 800 x 1344.
@lru_cache(maxsize=8)
def _cached_shift_mask(size, window_size, shift_size, device) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor could not serve a later training step
        return _shift_mask(size, window_size, shift_size, device)


def relative_position_index(window_size: tuple[int, int]) -> Tensor:
    """Row of the bias table for each pair of tokens of a window.

    Args:
        window_size: `(Wh, Ww)` in tokens.

    Returns:
        `(N, N)` int64, values in `[0, (2*Wh-1)*(2*Ww-1))`; entry `[i, j]` belongs to query `i`
        and key `j`.

    Source:
        Liu et al., Swin Transformer, 2021, equation 4, with the table in the row order of
        microsoft/Swin-Transformer.
    """
    win_h, win_w = window_size
    position = torch.arange(win_h * win_w)
    row, column = position // win_w, position % win_w
    row_offset = row[:, None] - row[None, :] + win_h - 1
    column_offset = column[:, None] - column[None, :] + win_w - 1
    return row_offset * (2 * win_w - 1) + column_offset
