"""Rewrites the parameters of a backbone in another layout."""

import re
from typing import NamedTuple

import torch

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import Layout, State, find_version
from swin_mm.checkpoint.report import list_names

# Norms of single outputs, which libraries for classification do not have.
OUTPUT_NORM = re.compile(r"norm\d+\.\w+")


class Converted(NamedTuple):
    """A backbone in another layout.

    Attributes:
        state: The parameters, without prefix.
        left_out: Parameters, by our own names, that the layout has no place for: output norms.
    """

    state: State
    left_out: list[str]


def convert(state: State, target: Layout) -> Converted:
    """Rewrites the parameters of a backbone in another layout.

    Args:
        state: Parameters in our own layout.
        target: The wanted layout.

    Returns:
        The parameters, as contiguous tensors that share no memory, and which were left out.

    Raises:
        CheckpointError: The layout has no place for something that the blocks need.
    """
    version = find_version(state)
    if version not in target.versions:
        raise CheckpointError(f"it is a Swin V{version}, and {target.name} has none")
    lost = target.list_lost(state)
    if needed := [key for key in lost if not OUTPUT_NORM.fullmatch(key)]:
        raise CheckpointError(f"{target.name} has no place for {list_names(needed)}")
    written = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in target.from_own(state).items()
    }
    return Converted(written, lost)
