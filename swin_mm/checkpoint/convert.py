"""Rewrites the parameters of a backbone in another layout."""

import re
from typing import NamedTuple

import torch

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import Layout, State, find_version
from swin_mm.checkpoint.report import list_names
from swin_mm.checkpoint.variant import list_output_norms

# Parts that are alike in every stage, but for norms that V2's largest models have in some blocks.
PART = re.compile(r"(layers\.\d+\.(?:(blocks)\.\d+|downsample))\.((?!norm3\.).+)")

# What a weight is computed from, with `torch.nn.utils.prune`, `weight_norm` or `spectral_norm`.
FACTOR = re.compile(r".+\.(weight|bias)_\w+")


class Converted(NamedTuple):
    """Parameters without prefix, and the keys of those that the layout has no place for."""

    state: State
    left_out: list[str]


def convert(state: State, target: Layout) -> Converted:
    """Rewrites the parameters of a backbone from our own layout in another.

    Returns:
        The parameters, as contiguous tensors that share no memory, and which were left out.

    Raises:
        CheckpointError: The layout has no place for something that the blocks need, or a block or
            merging lacks a parameter that others have, or a weight is in parts.
    """
    if factors := [key for key in state if FACTOR.fullmatch(key)]:
        raise CheckpointError(
            f"its weights are in parts, such as {factors[0]}: make them whole in the model, as "
            "torch.nn.utils.prune.remove does, and save it again"
        )
    if missing := _find_missing(state):
        raise CheckpointError(f"it is incomplete, without {list_names(missing)}")
    version = find_version(state)
    if version not in target.versions:
        raise CheckpointError(f"it is a Swin V{version}, and {target.name} has none")
    lost = target.list_lost(state)
    # Libraries for classification do not have norms of single outputs.
    norms = list_output_norms(state)
    if needed := [key for key in lost if key.partition(".")[0] not in norms]:
        raise CheckpointError(f"{target.name} has no place for {list_names(needed)}")
    written = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in target.from_own(state).items()
    }
    return Converted(written, lost)


def _find_missing(state: State) -> list[str]:
    """Finds parameters that one block or merging lacks and another has."""
    blocks: dict[str, set[str]] = {}
    mergings: dict[str, set[str]] = {}
    for match in filter(None, map(PART.fullmatch, state)):
        (blocks if match[2] else mergings).setdefault(match[1], set()).add(match[3])
    missing = []
    for parts in (blocks, mergings):
        every = set().union(*parts.values())
        missing += [f"{part}.{name}" for part in parts for name in sorted(every - parts[part])]
    return missing
