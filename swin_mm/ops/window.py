"""Windows on a channels-last map: padding, shift, partition, regions and relative positions.

The only definitions in the project. Maps are `(B, H, W, C)`; windows are `(B*nW, N, C)` with
`N = Wh*Ww`, windows and tokens in row-major order. Pairs are always `(h, w)`, in tokens: the `size`
of a map is `(H, W)`, or `(Hp, Wp)` after padding, `window_size` is `(Wh, Ww)`, and `shift_size`
`(Sh, Sw)`. `device` is where a result lives; eager calls share results by size, as read-only.

Padding, shift and partition are one rearrangement of tokens, so they are done as one: a layout
is computed from the sizes alone, and tokens are gathered by it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_mm.ops.cache import cached
from swin_mm.ops.setting import needs_plain_operators

# Added to the score of a query and a key from different regions. Published weights were trained
# with this finite value, so it stays: -inf would give other numbers.
# Source: microsoft/Swin-Transformer, models/swin_transformer.py, SwinTransformerBlock.__init__.
MASK_VALUE = -100.0


def padded_size(size: Sequence[int], window_size: Sequence[int]) -> tuple[int, int]:
    """The smallest multiple `(Hp, Wp)` of the window that holds `size`."""
    (height, width), (win_h, win_w) = size, window_size
    return (height + win_h - 1) // win_h * win_h, (width + win_w - 1) // win_w * win_w


def pad_bottom_right(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads a map with zeros at the bottom and the right; `x` itself where nothing is missing."""
    height, width = x.shape[1:3]
    # Compiled code pads always: a branch on the sides would cost a recompilation for each case.
    if not torch.compiler.is_compiling() and (height, width) == tuple(size):
        return x
    return F.pad(x, (0, 0, 0, size[1] - width, 0, size[0] - height))


class WindowLayout(NamedTuple):
    """Which token of a map stands where in its windows."""

    inverse_index: Tensor  # (H*W,) int64, for each token its place among the nW*N of the windows
    gather_index: Tensor  # (nW*N,) int64, for each place its token; H*W where there is padding
    # (nW*N - H*W,) int64, the places of padding; empty in compiled code, where the count of places
    # is no plain number.
    padding: Tensor
    size: tuple[int, int]  # of the map
    num_tokens: int  # of a window, N


# Plain and shifted windows of four stages, at four image sizes; one layout takes up to 1.1 MiB at
# 800 x 1344.
@cached(32)
def window_layout(
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    device: torch.device | None = None,
) -> WindowLayout:
    """Computes which token goes where in the windows of a padded and shifted map.

    The map is padded at the bottom and the right to a multiple of the window, rolled by
    `-shift_size` and cut.
    """
    (height, width), (win_h, win_w) = size, window_size
    pad_h, pad_w = padded_size(size, window_size)
    token = torch.arange(height * width, device=device)
    row = (token // width - shift_size[0]) % pad_h
    column = (token % width - shift_size[1]) % pad_w
    window = row // win_h * (pad_w // win_w) + column // win_w
    inverse_index = window * (win_h * win_w) + row % win_h * win_w + column % win_w

    # The other way round by arithmetic too: nothing is written by index, in any order.
    place, row, column = _places((pad_h, pad_w), window_size, device)
    row, column = (row + shift_size[0]) % pad_h, (column + shift_size[1]) % pad_w
    is_token = (row < height) & (column < width) & (place < pad_h * pad_w)
    gather_index = torch.where(is_token, row * width + column, height * width)
    if torch.compiler.is_compiling():
        # The bounds are known; PyTorch's compiler fails to work them out (2.14).
        inverse_index = inverse_index.clamp(0, gather_index.shape[0] - 1)
        gather_index = gather_index.clamp(0, height * width)
        return WindowLayout(inverse_index, gather_index, gather_index[:0], size, win_h * win_w)
    # Sorting, unlike `nonzero`, need not tell the host how many there are.
    padding_first = torch.argsort(is_token.to(torch.uint8), stable=True)
    num_padding = gather_index.shape[0] - inverse_index.shape[0]
    padding = padding_first[:num_padding]
    return WindowLayout(inverse_index, gather_index, padding, size, win_h * win_w)


def _places(
    size: tuple[int, int], window_size: tuple[int, int], device: torch.device | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers the places of the windows of a padded map, and gives the row and column of each."""
    win_h, win_w = window_size
    # Compiled code has one window more, all padding: PyTorch compiles anew for a count of 1, so
    # each stage whose map shrinks to a single window would cost a recompilation.
    extra = win_h * win_w if torch.compiler.is_compiling() else 0
    pad_h, pad_w = padded_size(size, window_size)
    place = torch.arange(pad_h * pad_w + extra, device=device)
    window, inside = place // (win_h * win_w), place % (win_h * win_w)
    row = window // (size[1] // win_w) * win_h + inside // win_w
    column = window % (size[1] // win_w) * win_w + inside % win_w
    return place, row, column


def _gather_places(tokens: Tensor, fill: Tensor, gather_index: Tensor, padding: Tensor) -> Tensor:
    """Tokens `(B, H*W, C)` at their places `(B, nW*N, C)`; padding is `fill`, `(C,)`."""
    num_tokens = tokens.shape[1]
    # Compiled code never compares these sizes: each outcome would cost a recompilation.
    if torch.compiler.is_compiling() or num_tokens + padding.shape[0] != gather_index.shape[0]:
        return _gather_appended(tokens, fill, gather_index)
    # Appending the fill would copy the whole map: padding takes any token, then the fill.
    places = tokens.index_select(1, gather_index.clamp(max=num_tokens - 1))
    places[:, padding] = fill
    return places


def _gather_appended(tokens: Tensor, fill: Tensor, gather_index: Tensor) -> Tensor:
    """`_gather_places` in operators that can be transformed and traced."""
    tokens = torch.cat([tokens, fill.expand(tokens.shape[0], 1, -1)], dim=1)
    return tokens.index_select(1, gather_index)


class _ToPlaces(torch.autograd.Function):
    """`_gather_places`, with a backward that gathers too.

    Each token has one place. Autograd would scatter, which is slower and, on a GPU, adds in no
    fixed order.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, fill: Tensor, *layout: Tensor) -> Tensor:
        ctx.save_for_backward(*layout)
        return _gather_places(tokens, fill, *layout[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        layout = ctx.saved_tensors  # read once: recomputed activations are given out once
        inverse_index, gather_index, padding = layout
        grad_fill = None
        if ctx.needs_input_grad[1]:
            num_padding = gather_index.shape[0] - inverse_index.shape[0]
            if torch.compiler.is_compiling() or padding.shape[0] != num_padding:
                is_padding = gather_index == inverse_index.shape[0]
                grad_fill = (is_padding.to(grad.dtype) @ grad).sum(0)
            else:
                grad_fill = grad.index_select(1, padding).sum((0, 1))
        return _ToTokens.apply(grad, *layout), grad_fill, None, None, None


class _ToTokens(torch.autograd.Function):
    """Gathers places `(B, nW*N, C)` back to tokens `(B, H*W, C)`, without the padding."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, *layout: Tensor) -> Tensor:
        ctx.save_for_backward(*layout)
        return places.index_select(1, layout[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        zeros = grad.new_zeros(grad.shape[-1])
        return _ToPlaces.apply(grad, zeros, *ctx.saved_tensors), None, None, None


def window_partition(x: Tensor, fill: Tensor | None, layout: WindowLayout) -> Tensor:
    """Pads a map at the bottom and the right, shifts it and cuts it into windows.

    The map is `(B, H, W, C)`, windows are `(B*nW, N, C)`. It is padded with the token `fill`
    `(C,)`, which gradients reach, or with zeros.
    """
    fill = x.new_zeros(x.shape[-1]) if fill is None else fill.to(x.dtype)
    tokens = x.flatten(1, 2)
    if not torch.is_grad_enabled() and not torch.jit.is_tracing():
        places = _gather_places(tokens, fill, *layout[1:3])
    elif needs_plain_operators():
        places = _gather_appended(tokens, fill, layout.gather_index)
    else:
        places = _ToPlaces.apply(tokens, fill, *layout[:3])  # (B, nW*N, C)
    return places.flatten(0, 1).unflatten(0, (-1, layout.num_tokens))


def window_reverse(windows: Tensor, layout: WindowLayout) -> Tensor:
    """Puts windows back into a map and drops the padding; the inverse of `window_partition`."""
    places = windows.flatten(0, 1).unflatten(0, (-1, layout.gather_index.shape[0]))  # (B, nW*N, C)
    if torch.is_grad_enabled() and not needs_plain_operators():
        tokens = _ToTokens.apply(places, *layout[:3])
    else:
        tokens = places.index_select(1, layout.inverse_index)
    return tokens.unflatten(1, layout.size)


def region_ids(
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """Numbers the regions that a cyclic shift brings together in one window.

    After the roll by `-shift_size`, the last `Wh` rows hold two regions: the map's last rows
    and, in the final `shift_size` ones, the rows that wrapped around; columns alike. A shift of 0
    on an axis leaves it one region.

    Returns:
        `(nW, N)` int64: tokens of a window attend to each other when their ids are equal.
    """
    place, row, column = _places(size, window_size, device)
    ids = torch.zeros_like(place)
    for i, position in enumerate((row, column)):
        if shift_size[i]:
            is_last = (position >= size[i] - window_size[i]).long()
            has_wrapped = (position >= size[i] - shift_size[i]).long()
            ids = ids + 3**i * (is_last + has_wrapped)
    return ids.unflatten(0, (-1, window_size[0] * window_size[1]))


# Eight sizes hold the stages of two image sizes; one mask takes up to 13 MiB at 800 x 1344.
@cached(8)
def shift_mask(
    size: tuple[int, int],
    window_size: tuple[int, int],
    shift_size: tuple[int, int],
    device: torch.device | None = None,
) -> Tensor:
    """The additive mask of shifted-window attention on a padded map.

    Returns:
        `(nW, N, N)` float32, 0 within a region and `MASK_VALUE` across regions.

    Source:
        Liu et al., Swin Transformer, 2021, section 3.2, "Efficient batch computation".
    """
    ids = region_ids(size, window_size, shift_size, device)
    return (ids[:, :, None] != ids[:, None, :]).float() * MASK_VALUE


# A window for each of four stages; one index takes 2.5 MiB for a window of 24.
@cached(16)
def relative_position_index(
    window_size: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Row of the bias table for each pair of tokens of a window.

    Returns:
        `(N, N)` int64, values in `[0, (2*Wh-1)*(2*Ww-1))`; entry `[i, j]` belongs to query `i`
        and key `j`.

    Source:
        Liu et al., Swin Transformer, 2021, equation 4, with the table in the row order of
        microsoft/Swin-Transformer.
    """
    win_h, win_w = window_size
    position = torch.arange(win_h * win_w, device=device)
    row, column = position // win_w, position % win_w
    row_offset = row[:, None] - row[None, :] + win_h - 1
    column_offset = column[:, None] - column[None, :] + win_w - 1
    return row_offset * (2 * win_w - 1) + column_offset
