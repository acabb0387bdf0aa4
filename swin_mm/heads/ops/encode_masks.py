"""Masks as COCO's compressed run lengths, all instances of an image at once.

pycocotools reads every pixel of every mask, in the order of the columns, on the CPU. Here the
places where a mask changes are found where the mask lies, so of masks on a GPU only these travel.

Source: the format is `rleEncode` and `rleToString` of
https://github.com/cocodataset/cocoapi/blob/8c9bcc3/common/maskApi.c
"""

import numpy as np
import torch
from torch import Tensor

BITS = 5  # of a run length in one character
CONTINUES = 1 << BITS  # set in a character that is not the last of its number
SIGN = 1 << (BITS - 1)  # set in the last character of a negative number
FIRST_CHARACTER = 48


def encode_masks(masks: Tensor) -> list[dict]:
    """Encodes masks `(N, H, W)`, bool or uint8 of 0 and 1, as `pycocotools.mask.encode` does.

    Raises:
        ValueError: `masks` has another shape or type.
    """
    if masks.ndim != 3 or masks.dtype not in (torch.bool, torch.uint8):
        raise ValueError(
            f"masks must be (N, H, W), bool or uint8, got {tuple(masks.shape)}, {masks.dtype}"
        )
    count, height, width = masks.shape
    if masks.numel() == 0:
        return [{"size": [height, width], "counts": b"0"} for _ in range(count)]
    mask, position = _changes(masks.detach())
    counts, owner = _run_lengths(mask, position, count, height * width)
    texts = _compress(counts, owner, count)
    return [{"size": [height, width], "counts": text} for text in texts]


def _changes(masks: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Where masks change, counted down the columns.

    Returns:
        For each change the mask and the first pixel after it, ordered by both. A mask that covers
        the first pixel changes there, from the background that every code begins with.
    """
    count, height, width = masks.shape
    masks = masks.contiguous().view(torch.uint8)
    mask, row, column = _nonzero(masks[:, 1:] != masks[:, :-1])
    # Between a column's last pixel and the first of the next.
    above = torch.nn.functional.pad(masks[:, -1, :-1], (1, 0))  # (N, W)
    top_mask, _, top_column = _nonzero((masks[:, 0] != above)[:, None])
    mask = np.concatenate([mask, top_mask])
    position = np.concatenate([column * height + row + 1, top_column * height])
    order = np.argsort(mask * (height * width) + position)
    return mask[order], position[order]


def _nonzero(flags: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of true elements of `(N, H, W)`."""
    if flags.device.type == "cpu":  # torch's own needs seven times as long there
        places = np.flatnonzero(flags.numpy())
    else:
        places = flags.flatten().nonzero()[:, 0].cpu().numpy()
    mask, row, column = np.unravel_index(places, flags.shape)
    return mask, row, column


def _run_lengths(
    mask: np.ndarray, position: np.ndarray, count: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of runs, background first, of all masks one after another; and whose they are."""
    per_mask = np.bincount(mask, minlength=count)  # changes
    stops = np.cumsum(per_mask + 1) - 1  # of each mask, the index of its last run
    ends = np.empty(len(mask) + count, dtype=np.int64)
    is_last = np.zeros(len(ends), dtype=bool)
    is_last[stops] = True
    ends[is_last], ends[~is_last] = size, position
    starts = np.roll(ends, 1)
    starts[stops[:-1] + 1] = starts[0] = 0
    return ends - starts, np.repeat(np.arange(count), per_mask + 1)


def _compress(counts: np.ndarray, owner: np.ndarray, count: int) -> list[bytes]:
    """Writes run lengths as characters of five bits, from the fourth on as differences.

    A run is written as its difference to the run before the last, of the same colour.
    """
    per_mask = np.bincount(owner, minlength=count)
    index = np.arange(len(counts)) - np.repeat(np.cumsum(per_mask) - per_mask, per_mask)
    rest = counts - np.where(index > 2, np.roll(counts, 2), 0)
    characters, present = [], []
    more = np.ones(len(rest), dtype=bool)
    while more.any():
        present.append(more)
        bits = rest & (CONTINUES - 1)
        rest = rest >> BITS
        more = more & (rest != np.where(bits & SIGN, -1, 0))
        characters.append((bits + more * CONTINUES + FIRST_CHARACTER).astype(np.uint8))
    is_used = np.stack(present, axis=1)  # (runs, characters)
    text = np.stack(characters, axis=1)[is_used].tobytes()
    lengths = np.bincount(owner, weights=is_used.sum(axis=1), minlength=count).astype(np.int64)
    stops = np.cumsum(lengths)
    return [text[stop - n : stop] for stop, n in zip(stops.tolist(), lengths.tolist(), strict=True)]
