"""Launches of the window attention kernels: grids, arguments and sums of partials."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from swin_mm.ops.triton import many_tiles, one_tile
from swin_mm.ops.triton.support import count_processors
from swin_mm.ops.triton.tile import IS_INTERPRETED
from swin_mm.ops.window import padded_size

MIN_BLOCK = 16  # the least side of a matrix that tl.dot multiplies
# Side of a tile, and the most tokens of a window that is one: backward holds four tiles in float32,
# which at 128 x 128 would pass the registers of a multiprocessor.
TILE = 64
# Products of float32 are no tensor core's: their operands lie in registers, of which tiles of 64
# would spill ten thousand bytes a thread. At 64 they would also pass the shared memory of
# capability 8.6 and 8.9.
FLOAT32_TILE = 32


class Launch(NamedTuple):
    """A kernel, and how it is launched."""

    kernel: Any
    num_warps: int  # of a program
    num_stages: int  # of the pipeline of loads
    programs_per_processor: int = 0  # for each multiprocessor, if one takes several windows


# Chosen by the registers that compiled code spills, and its shared memory, for compute capability
# 8.0 to 10.0, see tests/ops/compile_attention.py: no timing stands behind them.
LAUNCHES = {
    "one_tile.forward": Launch(one_tile.forward_kernel, 4, 2, 8),
    "one_tile.backward": Launch(one_tile.backward_kernel, 4, 1, 4),
    "many_tiles.forward": Launch(many_tiles.forward_kernel, 4, 2),
    "many_tiles.grad_query": Launch(many_tiles.grad_query_kernel, 4, 1),
    "many_tiles.grad_key_value": Launch(many_tiles.grad_key_value_kernel, 4, 1, 4),
    "many_tiles.grad_bias": Launch(many_tiles.grad_bias_kernel, 8, 1, 4),
}
# Heads of more channels than this take twice the warps where registers are short.
NARROW_HEAD = 32
SHORT_OF_REGISTERS = ("one_tile.backward", "many_tiles.grad_key_value")


def choose_launch(name: str, dtype: torch.dtype, head_dim: int) -> Launch:
    """Settings of a kernel for query, key and value of a dtype, and heads of so many channels."""
    settings = LAUNCHES[name]
    if dtype == torch.float32:
        return settings._replace(num_warps=4, num_stages=1)
    if head_dim > NARROW_HEAD and name in SHORT_OF_REGISTERS:
        return settings._replace(num_warps=8)
    return settings


def tile_side(dtype: torch.dtype) -> int:
    """Most queries, and most keys, of a tile."""
    return FLOAT32_TILE if dtype == torch.float32 else TILE


class Problem(NamedTuple):
    """What is attended to, apart from the tensors; see `swin_mm.ops.window_attention`."""

    num_heads: int
    window_size: tuple[int, int]
    shift_size: tuple[int, int]
    scale: float

    @classmethod
    def of_numbers(cls, sizes: Sequence[int], scale: float) -> "Problem":
        """The inverse of `to_numbers`."""
        num_heads, win_h, win_w, shift_h, shift_w = sizes
        return cls(num_heads, (win_h, win_w), (shift_h, shift_w), scale)

    def to_numbers(self) -> tuple[list[int], float]:
        """As operators of `torch.library` take it."""
        return [self.num_heads, *self.window_size, *self.shift_size], self.scale

    @property
    def num_tokens(self) -> int:
        """Tokens of a window, `N`."""
        return self.window_size[0] * self.window_size[1]

    def count_blocks(self, dtype: torch.dtype) -> int:
        """Tiles on a side of a window."""
        return triton.cdiv(self.num_tokens, tile_side(dtype))

    def count_windows(self, qkv: Tensor) -> int:
        """Windows of a batch of maps, `B*nW`."""
        pad_h, pad_w = padded_size(qkv.shape[1:3], self.window_size)
        return qkv.shape[0] * (pad_h * pad_w // self.num_tokens)


def forward(qkv: Tensor, bias: Tensor, pad_token: Tensor | None, problem: Problem) -> Tensor:
    """Attends; arguments and result are those of `swin_mm.ops.window_attention`."""
    launch = _Launcher(qkv, bias, pad_token, problem)
    out = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
    blocks = problem.count_blocks(qkv.dtype)
    if blocks == 1:
        launch("one_tile.forward", out, programs=launch.count_programs("one_tile.forward", 1))
    else:
        launch("many_tiles.forward", out, blocks=blocks)
    return out


def backward(
    grad_out: Tensor, qkv: Tensor, bias: Tensor, pad_token: Tensor | None, problem: Problem
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `qkv` in its dtype, and of `bias` and `pad_token` in float32.

    That of a missing padding token is zero.
    """
    launch = _Launcher(qkv, bias, pad_token, problem)
    grad_out = grad_out.contiguous()
    # Each token is in one window, so all of it is written.
    grad_qkv = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    blocks = problem.count_blocks(qkv.dtype)
    if blocks == 1:
        programs = launch.count_programs("one_tile.backward", 1)
        grad_bias, grad_pad = launch.new_bias_partials(programs), launch.new_pad_partials(programs)
        tensors = grad_out, grad_qkv, grad_bias, grad_pad
        launch("one_tile.backward", *tensors, programs=programs)
        return grad_qkv, grad_bias.sum(0), grad_pad.sum(0)

    stats = launch.new_stats()
    launch("many_tiles.grad_query", grad_out, stats, grad_qkv, blocks=blocks)
    programs = launch.count_programs("many_tiles.grad_key_value", blocks)
    grad_pad = launch.new_pad_partials(programs * blocks)
    tensors = grad_out, stats, grad_qkv, grad_pad
    launch("many_tiles.grad_key_value", *tensors, blocks=blocks, programs=programs)
    programs = launch.count_programs("many_tiles.grad_bias", blocks**2)
    grad_bias = launch.new_bias_partials(programs)
    sums = grad_out, stats, grad_bias
    launch("many_tiles.grad_bias", *sums, blocks=blocks**2, programs=programs)
    return grad_qkv, grad_bias.sum(0), grad_pad.sum(0)


class _Launcher:
    """Launches kernels on the same query, key, value, bias and padding token."""

    def __init__(
        self, qkv: Tensor, bias: Tensor, pad_token: Tensor | None, problem: Problem
    ) -> None:
        self.qkv = qkv if qkv.stride(-1) == 1 else qkv.contiguous()
        self.problem = problem
        self.head_dim = qkv.shape[3] // (3 * problem.num_heads)
        self.num_windows = problem.count_windows(qkv)
        is_padded = tuple(qkv.shape[1:3]) != padded_size(qkv.shape[1:3], problem.window_size)
        self.fills_padding = is_padded and pad_token is not None
        # A kernel that fills no padding leaves its third argument alone.
        padding = self.qkv
        if self.fills_padding and pad_token is not None:
            padding = pad_token.to(qkv.dtype).contiguous()
        self.inputs = self.qkv, bias.contiguous(), padding

    def __call__(
        self, name: str, *tensors: Tensor, blocks: int = 1, programs: int | None = None
    ) -> None:
        """Launches a kernel, whose arguments after the inputs are `tensors`.

        There are `blocks` programs for each head of a window. Windows are divided among `programs`
        programs, for kernels that take several; `None` for those that take one.
        """
        num_heads, window_size, shift_size, scale = self.problem
        settings = choose_launch(name, self.qkv.dtype, self.head_dim)
        sides = {"BLOCK_M": tile_side(self.qkv.dtype), "BLOCK_N": tile_side(self.qkv.dtype)}
        if name.startswith("one_tile"):
            side = triton.next_power_of_2(self.problem.num_tokens)
            sides = {"BLOCK": max(MIN_BLOCK, side)}
        counts = () if programs is None else (self.num_windows, programs)
        share = self.num_windows if programs is None else programs
        with torch.cuda.device_of(self.qkv):
            settings.kernel[(share * num_heads * blocks,)](
                *self.inputs,
                *tensors,
                self.qkv.stride()[:3],
                *counts,
                *self.qkv.shape[1:3],
                scale,
                NUM_HEADS=num_heads,
                HEAD_DIM=self.head_dim,
                WINDOW=(*window_size, *shift_size),
                FILLS_PADDING=self.fills_padding,
                DOT_DTYPE=dot_dtype(self.qkv.dtype),
                PRECISION=_precision(),
                BLOCK_D=max(MIN_BLOCK, triton.next_power_of_2(self.head_dim)),
                **sides,
                num_warps=settings.num_warps,
                num_stages=settings.num_stages,
            )

    def count_programs(self, name: str, blocks: int) -> int:
        """Among how many programs windows are divided, so that a GPU is filled evenly."""
        wanted = LAUNCHES[name].programs_per_processor * count_processors(self.qkv.device)
        return max(1, min(self.num_windows, wanted // (self.problem.num_heads * blocks)))

    def new_stats(self) -> Tensor:
        """For three numbers of each query, `(B*nW, nH, 3, N)`."""
        shape = self.num_windows, self.problem.num_heads, 3, self.problem.num_tokens
        return self.qkv.new_empty(shape, dtype=torch.float32)

    def new_bias_partials(self, count: int) -> Tensor:
        shape = count, self.problem.num_heads, self.problem.num_tokens, self.problem.num_tokens
        return self.qkv.new_empty(shape, dtype=torch.float32)

    def new_pad_partials(self, count: int) -> Tensor:
        # Zeros: padding has no gradient as a query, and none at all where there is none.
        shape = count if self.fills_padding else 1, self.qkv.shape[3]
        return self.qkv.new_zeros(shape, dtype=torch.float32)


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """What matrices of a dtype are multiplied in."""
    if dtype == torch.bfloat16 and IS_INTERPRETED:
        return tl.float32  # the interpreter would multiply the bits as integers
    return {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[
        dtype
    ]


def _precision() -> str:
    """How float32 is multiplied: as PyTorch's own products of matrices are."""
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"
