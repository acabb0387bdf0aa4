"""Finds the backbone in the content of a checkpoint file, whatever is around it."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.hook import WRAPPERS
from swin_mm.checkpoint.layouts import Layout, State, describe_foreign, recognise
from swin_mm.checkpoint.variant import read_variant


class Backbone(NamedTuple):
    """A backbone that was found in a checkpoint.

    Attributes:
        wrapper: Key of the checkpoint under which the weights are, None where there is none.
        prefix: What stands before the backbone's keys, empty or ending in a dot.
        layout: The layout that was recognised.
        source: The backbone's part of the checkpoint, without prefix, as it is in the file.
        state: The parameters in our own layout.
        surplus: Keys of `source` that a backbone does not need, such as those of a classifier.
        unknown: Keys of `source` that the layout does not have.
        others: Keys without the prefix: necks, heads, other parts of the model.
        beside: Keys beside the wrapper: optimizer, epoch and the like.
    """

    wrapper: str | None
    prefix: str
    layout: Layout
    source: State
    state: State
    surplus: list[str]
    unknown: list[str]
    others: list[str]
    beside: list[str]

    def read_variant(self) -> dict[str, Any]:
        """Reads the arguments of the backbone that can be told, as the function of this name."""
        return read_variant(self.state | {key: self.source[key] for key in self.surplus})

    def list_output_norms(self) -> list[str]:
        """Names the norms of single outputs, such as `norm0`."""
        modules = dict.fromkeys(key.partition(".")[0] for key in self.state)
        return [name for name in modules if re.fullmatch(r"norm\d+", name)]


def find_backbone(checkpoint: Mapping[str, Any], prefix: str = "") -> Backbone:
    """Finds the backbone in the content of a checkpoint file.

    Args:
        checkpoint: What `load_checkpoint_file` returned.
        prefix: Look only at keys that begin with it; needed where there are several backbones.

    Returns:
        The backbone, and what else there is.

    Raises:
        CheckpointError: There is no Swin in it, or more than one.
    """
    wrapper = next((key for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)
    content = checkpoint if wrapper is None else checkpoint[wrapper]
    beside = [] if wrapper is None else [str(key) for key in checkpoint if key != wrapper]
    state = {str(key): value for key, value in content.items()}
    if not state:
        raise CheckpointError("there are no weights in it")
    chosen = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not chosen:
        raise CheckpointError(f"no key begins with {prefix!r}, {describe_foreign(state)}")
    recognised = recognise(chosen)
    if recognised is None:
        raise CheckpointError(f"no Swin in it, {describe_foreign(chosen)}")
    layout, prefix = recognised.layout, recognised.prefix
    source = {key[len(prefix) :]: value for key, value in chosen.items() if key.startswith(prefix)}
    for key, value in source.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{prefix}{key} is a {type(value).__name__}, wanted a tensor")
    own, surplus, unknown = layout.to_own(source)
    others = [key for key in state if not key.startswith(prefix)]
    return Backbone(wrapper, prefix, layout, source, own, surplus, unknown, others, beside)
