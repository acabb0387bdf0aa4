"""Launch settings of the window attention kernels."""

from functools import lru_cache
from typing import NamedTuple

import torch

# Windows of more tokens are cut into tiles: backward holds four tiles in float32, which at
# 128 x 128 would pass the registers of a multiprocessor.
MAX_ONE_TILE = 64
# Products of float32 are no tensor core's: their operands lie in registers, of which tiles of 64
# would spill ten thousand bytes a thread. At 64 they would also pass the shared memory of
# capability 8.6 and 8.9.
FLOAT32_BLOCK = 32
INTERPRETED_PROCESSORS = 1  # where there is no GPU to ask


class Launch(NamedTuple):
    """How a kernel is launched."""

    block_m: int  # most queries of a tile, a power of 2
    block_n: int  # most keys of a tile, a power of 2
    num_warps: int  # of a program
    num_stages: int  # of the pipeline of loads
    programs_per_processor: int = 0  # for each multiprocessor, if one takes several windows


# By kernel. Chosen by the registers that compiled code spills, and its shared memory, for compute
# capability 8.0 to 10.0, see tests/ops/compile_attention.py: no timing stands behind them.
DEFAULTS = {
    "one_tile.forward": Launch(64, 64, 4, 2, 8),
    "one_tile.backward": Launch(64, 64, 4, 1, 4),
    "many_tiles.forward": Launch(64, 64, 4, 2),
    "many_tiles.grad_query": Launch(64, 64, 4, 1),
    "many_tiles.grad_key_value": Launch(64, 64, 4, 1, 4),
    "many_tiles.grad_bias": Launch(64, 64, 8, 1, 4),
}
# Heads of more channels than this take twice the warps where registers are short.
NARROW_HEAD = 32
SHORT_OF_REGISTERS = ("one_tile.backward", "many_tiles.grad_key_value")


def max_one_tile(dtype: torch.dtype) -> int:
    """The most tokens of a window that is one tile."""
    return FLOAT32_BLOCK if dtype == torch.float32 else MAX_ONE_TILE


def choose_launch(name: str, dtype: torch.dtype, head_dim: int) -> Launch:
    """Settings of a kernel for query, key and value of a dtype, and heads of so many channels."""
    settings = DEFAULTS[name]
    if dtype == torch.float32:
        blocks = dict(block_m=FLOAT32_BLOCK, block_n=FLOAT32_BLOCK)
        return settings._replace(num_warps=4, num_stages=1, **blocks)
    if head_dim > NARROW_HEAD and name in SHORT_OF_REGISTERS:
        return settings._replace(num_warps=8)
    return settings


@lru_cache
def count_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
