"""What the kernels that go by rows share: tiles, statistics of a row, sums over rows, launches.

A map `(B, H, W, C)` is a matrix of `R = B*H*W` rows and `C` columns. A tile holds all channels of
a few rows. Sums over rows are taken by a fixed number of programs, each in registers over the tiles
it goes through, and leave as one float32 partial for each program: the order of additions is always
the same.

Divisions of one number for a row are rounded to nearest (`div_rn`), as PyTorch's are. Plain ones of
Triton may err by two units in the last place on a GPU, and as much in a whole row, or in a whole
map, of which there is one factor of stochastic depth: that alone could exceed the
limit of the self-test.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.triton.support import count_processors

# Sizes that change from image to image: no new kernel for one that is 1 or a multiple of 16.
CHANGING = ["num_rows", "rows_per_sample", "num_programs", "height", "width"]
FORWARD_TILE = 4096  # elements
BACKWARD_TILE = 2048  # half, for it holds twice as many tiles
WIDE = 2048  # channels from which on a row is divided among more warps
PROGRAMS_PER_PROCESSOR = 4


def choose_tile(channels: int, elements: int) -> dict[str, int]:
    """The tile of about so many elements for rows of `channels`: powers of 2, and warps."""
    block = triton.next_power_of_2(channels)
    num_warps = 8 if block >= WIDE else 4
    return {"BLOCK_R": max(1, elements // block), "BLOCK_C": block, "num_warps": num_warps}


def count_rows(x: Tensor) -> tuple[int, int]:
    """Rows of a map `(B, H, W, C)`, and of one sample."""
    rows_per_sample = x.shape[1] * x.shape[2]
    return x.shape[0] * rows_per_sample, rows_per_sample


def dtype_of(tensor: Tensor | None) -> torch.dtype | None:
    return None if tensor is None else tensor.dtype


def count_programs(tiles: int, device: torch.device, columns: int = 1) -> int:
    """Among how many programs tiles of rows are divided, for each of `columns` tiles across."""
    wanted = PROGRAMS_PER_PROCESSOR * count_processors(device) // columns
    return max(1, min(tiles, wanted))


def new_partials(like: Tensor, programs: int, sums: int, channels: int) -> Tensor:
    """For the sums of each program, `(P, sums, C)` float32; zeros where no program runs."""
    new = like.new_empty if like.numel() else like.new_zeros
    return new((programs, sums, channels), dtype=torch.float32)


def launch(kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
    """Launches a kernel where its first tensor is."""
    first = next(argument for argument in arguments if isinstance(argument, Tensor))
    if programs > 0:  # an empty map has no rows
        with torch.cuda.device_of(first):
            kernel[(programs,)](*arguments, **constants)


def launch_forward(
    kernel: Any,
    tensors: Sequence[Tensor | None],
    sizes: Sequence[int],
    numbers: Sequence[float],
    channels: int,
    width: int | None = None,
) -> None:
    """Launches a forward kernel on rows of `width`, by default the channels of the map.

    `sizes` begins with the number of rows.
    """
    width = width or channels
    tile = choose_tile(width, FORWARD_TILE)
    programs = triton.cdiv(sizes[0], tile["BLOCK_R"])
    launch(kernel, programs, *tensors, *sizes, *numbers, CHANNELS=channels, **tile)


def launch_backward(
    kernel: Any,
    tensors: Sequence[Tensor | None],
    sizes: Sequence[int],
    numbers: Sequence[float],
    sums: int,
    channels: int,
    width: int | None = None,
) -> Tensor:
    """Launches a backward kernel, and adds up its partial sums over rows, `(sums, width)`."""
    width = width or channels
    like = next(tensor for tensor in tensors if tensor is not None)
    tile = choose_tile(width, BACKWARD_TILE)
    programs = count_programs(triton.cdiv(sizes[0], tile["BLOCK_R"]), like.device)
    partial = new_partials(like, programs, sums, width)
    arguments = *tensors, partial, *sizes, *numbers, programs
    launch(kernel, programs, *arguments, CHANNELS=channels, **tile)
    return partial.sum(0)


class Settings(NamedTuple):
    """Numbers of a residual sum with a norm."""

    keep_prob: float  # of stochastic depth
    eps: float  # of the norm
    dtype: torch.dtype  # of the second output


def cast_gradients(ctx: Any, found: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gradients in the `dtypes` of `ctx`, of the tensors that come first among its inputs.

    `None` where none is wanted or found.
    """
    needed = ctx.needs_input_grad[: len(found)]
    return [
        grad.to(dtype) if need and grad is not None else None
        for grad, dtype, need in zip(found, ctx.dtypes, needed, strict=True)
    ]


@triton.jit
def locate_rows(
    tile, num_rows, CHANNELS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Rows of a tile `(BLOCK_R,)`, and offset and mask of its elements `(BLOCK_R, BLOCK_C)`."""
    row = (tile * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)  # offsets may pass 2**31
    channel = tl.arange(0, BLOCK_C)
    mask = (row < num_rows)[:, None] & (channel < CHANNELS)[None, :]
    return row, row[:, None] * CHANNELS + channel[None, :], mask


@triton.jit
def load_vector(ptr, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """A number of each channel, `(BLOCK_C,)` float32."""
    channel = tl.arange(0, BLOCK_C)
    return tl.load(ptr + channel, mask=channel < CHANNELS, other=0.0).to(tl.float32)


@triton.jit
def store_partial(ptr, index, value, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """Writes a sum over rows, `(BLOCK_C,)`, as row `index` of `(..., C)`."""
    channel = tl.arange(0, BLOCK_C)
    tl.store(ptr + index * CHANNELS + channel, value, mask=channel < CHANNELS)


@triton.jit
def load_keep(noise_ptr, row, num_rows, rows_per_sample, keep_prob):
    """The factor of stochastic depth on each row, `(BLOCK_R,)`."""
    noise = tl.load(noise_ptr + row // rows_per_sample, mask=row < num_rows, other=0.0)
    return tl.div_rn(tl.floor(keep_prob + noise), keep_prob)


@triton.jit
def normalise_rows(
    value,  # (BLOCK_R, BLOCK_C) float32, 0 off `mask`
    mask,
    row,
    num_rows,
    eps,
    weight_ptr,  # (C,)
    bias_ptr,  # (C,)
    stats_ptr,  # (2, R), written: mean and reciprocal standard deviation
    CHANNELS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The layer norm of each row."""
    mean = tl.div_rn(tl.sum(value, 1), CHANNELS)
    centred = tl.where(mask, value - mean[:, None], 0.0)
    rstd = tl.rsqrt(tl.div_rn(tl.sum(centred * centred, 1), CHANNELS) + eps)
    tl.store(stats_ptr + row, mean, mask=row < num_rows)
    tl.store(stats_ptr + num_rows + row, rstd, mask=row < num_rows)
    out = (value - mean[:, None]) * rstd[:, None]
    out *= load_vector(weight_ptr, CHANNELS, BLOCK_C)[None, :]
    return out + load_vector(bias_ptr, CHANNELS, BLOCK_C)[None, :]


@triton.jit
def normalise_again(value, mask, row, num_rows, stats_ptr):
    """Rows as they were normalised, before weight and bias, and their `rstd`, `(BLOCK_R,)`."""
    mean = tl.load(stats_ptr + row, mask=row < num_rows, other=0.0)
    rstd = tl.load(stats_ptr + num_rows + row, mask=row < num_rows, other=0.0)
    return tl.where(mask, (value - mean[:, None]) * rstd[:, None], 0.0), rstd


@triton.jit
def grad_through_norm(grad, normed, rstd, CHANNELS: tl.constexpr):
    """Gradient of what was normalised.

    With `n` the normalised row and `g` its gradient, both 0 outside of the row:
    `rstd * (g - mean(g) - n * mean(g * n))`.
    """
    mean_grad = tl.div_rn(tl.sum(grad, 1), CHANNELS)
    mean_product = tl.div_rn(tl.sum(grad * normed, 1), CHANNELS)
    return rstd[:, None] * (grad - mean_grad[:, None] - normed * mean_product[:, None])
