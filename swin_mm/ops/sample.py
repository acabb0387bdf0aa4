"""A random choice of positives and negatives, for all images at once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Samples(NamedTuple):
    """Boxes chosen from `(B, N)`: image by image, its positives and then its negatives.

    Both by rising index, which is the order of mmdet's `SamplingResult`.
    """

    image: Tensor  # (S,) int64
    index: Tensor  # (S,) int64, which of the N
    num_pos: list[int]  # of each image, on the host
    num_neg: list[int]

    @property
    def positive(self) -> Tensor:
        """Where in `(S,)` the positives are: `(P,)` int64, without a question to the device."""
        starts, position = [], 0
        for pos, neg in zip(self.num_pos, self.num_neg, strict=True):
            starts.append(torch.arange(position, position + pos))
            position += pos + neg
        return to_device(torch.cat(starts), self.index.device)


def sample_randomly(
    assigned: Tensor, num: int, pos_fraction: float, neg_pos_ub: float = -1
) -> Samples:
    """Chooses the boxes that mmdet's `RandomSampler` chooses from the same seed.

    The host waits for the device once, for all counts. The random numbers are PyTorch's on the CPU,
    image by image, positives before negatives.

    Args:
        assigned: `(B, N)` int64: positive for boxes of a ground truth, 0 for background; others are
            never chosen.
        num: How many to choose from each image.
        pos_fraction: Positives are at most this share of `num`.
        neg_pos_ub: Negatives are at most so many times the positives chosen, or one; a negative
            number for no bound.
    """
    kinds = torch.stack((assigned > 0, assigned == 0), dim=1)  # (B, 2, N)
    counts = kinds.sum(2).tolist()
    picks, images, row_starts, pos, neg = [], [], [], [], []
    passed = 0  # of both kinds in the rows above
    for image, (num_pos, num_neg) in enumerate(counts):
        pos.append(min(num_pos, int(num * pos_fraction)))
        wanted = num - pos[-1]
        if neg_pos_ub >= 0:
            wanted = min(wanted, int(neg_pos_ub * max(1, pos[-1])))
        neg.append(min(num_neg, wanted))
        for kind, (count, size) in enumerate(((num_pos, pos[-1]), (num_neg, neg[-1]))):
            picks.append(_draw(count, size) + passed)
            passed += count
            images.append(torch.full((size,), image))
            row_starts.append(torch.full((size,), (2 * image + kind) * assigned.shape[1]))
    on_host = torch.stack([torch.cat(rows) for rows in (picks, images, row_starts)])
    pick, image, row_start = to_device(on_host, assigned.device)
    # The place of the n-th box of its kind is where the count of them reaches n + 1.
    reached = kinds.flatten().cumsum(0)
    return Samples(image, torch.searchsorted(reached, pick + 1) - row_start, pos, neg)


def _draw(count: int, size: int) -> Tensor:
    """`size` of the numbers below `count`, rising; draws random numbers only to leave some out."""
    if count <= size:
        return torch.arange(count)
    return torch.randperm(count)[:size].sort().values


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies from the host without waiting for the device."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
