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

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.triton.settings import count_processors

# Sizes that change from image to image: no new kernel for one that is 1 or a multiple of 16.
CHANGING = ["num_rows", "rows_per_sample", "num_programs", "height", "width"]
FORWARD_TILE = 4096  # elements
BACKWARD_TILE = 2048  # half, for it holds twice as many tiles
WIDE = 2048  # channels from which on a row is divided among more warps
PROGRAMS_PER_PROCESSOR = 4


class Tile(NamedTuple):
    """How rows are divided among programs.

    Attributes:
        rows: Rows of a tile, a power of 2.
        channels: Channels of a tile, a power of 2 and at least those of a row.
        num_warps: Warps of a program.
    """

    rows: int
    channels: int
    num_warps: int

    def to_kwargs(self) -> dict[str, int]:
        return {"BLOCK_R": self.rows, "BLOCK_C": self.channels, "num_warps": self.num_warps}


def choose_tile(channels: int, elements: int) -> Tile:
    """The tile of about so many elements for rows of `channels`."""
    block = triton.next_power_of_2(channels)
    return Tile(max(1, elements // block), block, 8 if block >= WIDE else 4)


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


class Settings(NamedTuple):
    """Numbers of a residual sum with a norm.

    Attributes:
        keep_prob: Of stochastic depth.
        eps: Of the norm.
        dtype: Of the second output.
    """

    keep_prob: float
    eps: float
    dtype: torch.dtype


def run_backward(
    ctx: Any,
    grads: tuple[Tensor | None, ...],
    launch_backward: Callable[..., Sequence[Tensor | None]],
    differentiable_backward: Callable[..., Sequence[Tensor | None]],
) -> list[Tensor | None]:
    """Gradients of the tensors of a residual sum with a norm, in their dtypes.

    Args:
        ctx: Of the function, with `dtypes` of those tensors; they come first among its inputs.
        grads: Of the outputs; `None` for zero.
        launch_backward: Gives the gradients by kernels. It takes `ctx`, what was saved and `grads`.
        differentiable_backward: Gives them so that they can be differentiated again.

    Returns:
        One for each tensor, `None` where none is wanted.
    """
    saved = ctx.saved_tensors  # read once: recomputed activations are given out once
    if not any(grad is not None for grad in grads):
        return [None] * len(ctx.dtypes)
    # The second, by create_graph=True.
    run = differentiable_backward if torch.is_grad_enabled() else launch_backward
    found = run(ctx, *saved, *grads)
    needed = ctx.needs_input_grad[: len(ctx.dtypes)]
    return [
        grad.to(dtype) if need and grad is not None else None
        for grad, dtype, need in zip(found, ctx.dtypes, needed, strict=True)
    ]


def differentiable_grads(
    compute: Callable[..., Sequence[Tensor | None]],
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients that can be differentiated again, through the readable formula.

    Args:
        compute: The formula, which takes `inputs` and gives outputs.
        inputs: What the formula takes.
        needed: For which of them a gradient is wanted.
        grads: Of the outputs; `None` for zero.

    Returns:
        One for each input, `None` where none is wanted.
    """
    # Views: an input may also be one of another's origins, which is not to be followed here.
    views = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
    with torch.enable_grad():
        outputs = compute(*views)
    pairs = [
        (out, grad)
        for out, grad in zip(outputs, grads, strict=True)
        if out is not None and grad is not None
    ]
    wanted = [t for t, need in zip(views, needed, strict=True) if need and t is not None]
    used = [out for out, _ in pairs]
    grads = [grad for _, grad in pairs]
    found = iter(torch.autograd.grad(used, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed]


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
def measure_rows(value, mask, eps, CHANNELS: tl.constexpr):
    """Mean and reciprocal standard deviation of each row, `(BLOCK_R,)`; `value` is 0 off `mask`."""
    mean = tl.div_rn(tl.sum(value, 1), CHANNELS)
    centred = tl.where(mask, value - mean[:, None], 0.0)
    return mean, tl.rsqrt(tl.div_rn(tl.sum(centred * centred, 1), CHANNELS) + eps)


@triton.jit
def grad_through_norm(grad, normed, rstd, CHANNELS: tl.constexpr):
    """Gradient of what was normalised.

    With `n` the normalised row and `g` its gradient, both 0 outside of the row:
    `rstd * (g - mean(g) - n * mean(g * n))`.
    """
    mean_grad = tl.div_rn(tl.sum(grad, 1), CHANNELS)
    mean_product = tl.div_rn(tl.sum(grad * normed, 1), CHANNELS)
    return rstd[:, None] * (grad - mean_grad[:, None] - normed * mean_product[:, None])
