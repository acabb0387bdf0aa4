"""A random choice of positives and negatives, for all images at once."""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from swin_mm.heads.ops.transfer import to_device


@dataclass(frozen=True)
class Samples:
    """Boxes chosen from `(B, N)`: image by image, its positives and then its negatives.

    Both by rising index, which is the order of mmdet's `SamplingResult`.
    """

    image: Tensor  # (S,) int64
    index: Tensor  # (S,) int64, which of the N
    positive: Tensor  # (P,) int64, where in the S the positives are
    num_pos: list[int]  # of each image, on the host
    num_neg: list[int]


def sample_randomly(
    assigned: Tensor, num: int, pos_fraction: float, neg_pos_ub: float = -1
) -> Samples:
    """Chooses the boxes that mmdet's `RandomSampler` chooses from the same seed.

    The host waits for the device once, for all counts. The random numbers are PyTorch's on the CPU,
    image by image, positives before negatives.

    `assigned`, `(B, N)` int64, is positive for boxes of a ground truth and 0 for background; others
    are never chosen. The numbers are settings of the sampler.
    """
    kinds = torch.stack((assigned > 0, assigned == 0), dim=1)  # (B, 2, N)
    counts = kinds.sum(2).tolist()
    # On the host, in rows of one kind in one image: the n-th of all rows is chosen.
    totals, sizes = [], []  # (2*B)
    for num_pos, num_neg in counts:
        totals += [num_pos, num_neg]
        sizes += _size(num_pos, num_neg, num, pos_fraction, neg_pos_ub)
    before = [0, *accumulate(totals)]
    draws = [_draw(total, size) for total, size in zip(totals, sizes, strict=True)]
    pick = torch.cat([draw + passed for draw, passed in zip(draws, before, strict=False)])
    row = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    positive = torch.cat(torch.arange(len(row)).split(sizes)[::2])
    on_device = to_device(torch.cat((pick, row, positive)), assigned.device)
    pick, row, positive = on_device.split([len(pick), len(row), len(positive)])
    # It is where the count reaches n + 1.
    place = torch.searchsorted(kinds.flatten().cumsum(0), pick + 1)
    index = place - row * assigned.shape[1]
    return Samples(row // 2, index, positive, sizes[::2], sizes[1::2])


def _size(
    num_pos: int, num_neg: int, num: int, pos_fraction: float, neg_pos_ub: float
) -> list[int]:
    """How many positives and negatives to choose from so many in an image."""
    pos = min(num_pos, int(num * pos_fraction))
    wanted = num - pos
    if neg_pos_ub >= 0:
        wanted = min(wanted, int(neg_pos_ub * max(1, pos)))
    return [pos, min(num_neg, wanted)]


def _draw(count: int, size: int) -> Tensor:
    """`size` of the numbers below `count`, rising; draws random numbers only to leave some out."""
    if count <= size:
        return torch.arange(count)
    return torch.randperm(count)[:size].sort().values
