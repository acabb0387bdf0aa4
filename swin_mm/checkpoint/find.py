"""Finds the backbone in the content of a checkpoint file, whatever is around it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import Layout, Recognised, State, describe_foreign, recognise
from swin_mm.checkpoint.lora import merge_lora
from swin_mm.checkpoint.variant import list_output_norms, read_variant

# Keys under which training scripts keep the weights, beside an optimizer and the like.
# The averages come last, as training goes on from the weights themselves.
WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")


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
        return list_output_norms(self.state)


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
    wrapper, content = unwrap(checkpoint)
    beside = [] if wrapper is None else [str(key) for key in checkpoint if key != wrapper]
    state = merge_lora({str(key): value for key, value in content.items()})
    if not state:
        raise CheckpointError("there are no weights in it")
    chosen = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not chosen:
        raise CheckpointError(f"no key begins with {prefix!r}, {describe_foreign(state)}")
    recognised = recognise(chosen)
    if recognised is None:
        raise CheckpointError(f"no Swin in it, {describe_foreign(chosen)}")
    layout, prefix = recognised.layout, recognised.prefix
    source = take_backbone(chosen, recognised)
    own, surplus, unknown = layout.to_own(source)
    others = [key for key in state if not key.startswith(prefix)]
    return Backbone(wrapper, prefix, layout, source, own, surplus, unknown, others, beside)


def unwrap(checkpoint: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Gives the weights in the content of a checkpoint file, and under which of `WRAPPERS`."""
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            return key, checkpoint[key]
    return None, checkpoint


def take_backbone(state: Mapping[str, Any], recognised: Recognised) -> State:
    """Takes the backbone out of a state dict, without prefix.

    Raises:
        CheckpointError: Something in it is no tensor.
    """
    prefix = recognised.prefix
    backbone = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    for key, value in backbone.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{prefix}{key} is a {type(value).__name__}, wanted a tensor")
    return backbone
