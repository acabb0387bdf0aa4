"""Launch settings of the window attention kernels."""

from functools import lru_cache
from typing import NamedTuple

import torch

# Windows of more tokens are cut into tiles: backward holds four tiles in float32, which at
# 128 x 128 would pass the registers of a multiprocessor.
MAX_ONE_TILE = 64
INTERPRETED_PROCESSORS = 1  # where there is no GPU to ask


class Launch(NamedTuple):
    """How a kernel is launched.

    Attributes:
        block_m: Most queries of a tile, a power of 2.
        block_n: Most keys of a tile, a power of 2.
        num_warps: Warps of a program.
        num_stages: Depth of the pipeline of loads.
        programs_per_processor: Programs for each multiprocessor, where one goes through several
            windows.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    programs_per_processor: int = 0


# By kernel. Chosen by the registers and the shared memory of code compiled for compute capability
# 9.0, heads of 32 channels and bfloat16: no timing stands behind them.
DEFAULTS = {
    "one_tile.forward": Launch(64, 64, 4, 2, 8),
    "one_tile.backward": Launch(64, 64, 4, 1, 4),
    "many_tiles.forward": Launch(64, 64, 4, 2),
    "many_tiles.grad_query": Launch(64, 64, 4, 2),
    "many_tiles.grad_key_value": Launch(64, 64, 4, 2, 4),
    "many_tiles.grad_bias": Launch(64, 64, 4, 1, 4),
}


FLOAT32_BLOCK = 32  # at 64 a program would pass the shared memory of capability 8.6 and 8.9


def choose_launch(name: str, dtype: torch.dtype) -> Launch:
    """Settings of a kernel for query, key and value of a dtype."""
    settings = DEFAULTS[name]
    if dtype == torch.float32 and name.startswith("many_tiles"):
        return settings._replace(block_m=FLOAT32_BLOCK, block_n=FLOAT32_BLOCK)
    return settings


@lru_cache
def count_processors(device: torch.device) -> int:
    """Multiprocessors of a GPU."""
    if device.type != "cuda":
        return INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
