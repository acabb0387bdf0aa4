"""Finds the backbone in the content of a checkpoint file, whatever is around it."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import Layout, Recognised, State, describe_foreign, recognise
from swin_mm.checkpoint.lora import merge_lora
from swin_mm.checkpoint.report import list_names
from swin_mm.checkpoint.variant import read_variant
from swin_mm.text import printable

# Keys under which training scripts keep the weights, beside an optimizer and the like.
# The averages come last, as training goes on from the weights themselves; of a teacher and a
# student, the teacher is what self-distillation is for.
WRAPPERS = (
    "state_dict",
    *("model", "model_state_dict", "model_state", "model_weights", "net", "network", "module"),
    *("params", "weights", "backbone", "teacher", "student", "state_dict_ema", "model_ema"),
    *("model_ema_state_dict", "ema_state_dict", "ema_model", "ema", "params_ema", "checkpoint"),
)
MAX_WRAPPERS = 3  # around each other
# Dicts of tensors that are no weights.
NO_WEIGHTS = re.compile(r".*(optim|sched|scaler|amp|message_hub|meta|args|config).*", re.I)
# What torch.compile puts into keys, and DistributedDataParallel before them.
COMPILED, PARALLEL = re.compile(r"(?<![^.])_orig_mod\."), re.compile(r"^(module\.)+")


class Backbone(NamedTuple):
    """A backbone that was found in a checkpoint.

    Attributes:
        wrapper: Keys under which the weights are, joined by dots, None where there are none.
        prefix: What stands before the backbone's keys, empty or ending in a dot.
        layout: The layout that was recognised.
        source: The backbone's part of the checkpoint, without prefix, as it is in the file.
        state, unused, unknown: As of `Conversion`.
        others: Keys without the prefix: necks, heads, other parts of the model.
        beside: Keys beside the wrapper: optimizer, epoch and the like.
    """

    wrapper: str | None
    prefix: str
    layout: Layout
    source: State
    state: State
    unused: list[str]
    unknown: list[str]
    others: list[str]
    beside: list[str]

    def read_variant(self) -> dict[str, Any]:
        """Reads the arguments of the backbone that can be told."""
        return read_variant(self.state | {key: self.source[key] for key in self.unused})


def find_backbone(checkpoint: Mapping[str, Any], prefix: str = "") -> Backbone:
    """Finds the backbone in the content of a checkpoint file.

    Only keys that begin with `prefix` are looked at; it is needed where there are several
    backbones.

    Raises:
        CheckpointError: There is no Swin in it, or more than one.
    """
    first, _, rest = prefix.partition(".")
    if isinstance(checkpoint.get(first), Mapping):  # chooses between several sets of weights
        checkpoint, prefix = {first: checkpoint[first]}, rest
    wrapper, content = unwrap(checkpoint)
    outer = "" if wrapper is None else wrapper.partition(".")[0]
    beside = [] if wrapper is None else [str(key) for key in checkpoint if key != outer]
    state = merge_lora(without_compiled({str(key): value for key, value in content.items()}))
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
    own, unused, unknown = layout.to_own(source)
    others = [key for key in state if not key.startswith(prefix)]
    return Backbone(wrapper, prefix, layout, source, own, unused, unknown, others, beside)


def unwrap(checkpoint: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Finds the weights in a checkpoint, and the keys they are under, joined by dots, or None."""
    path: list[str] = []
    while len(path) < MAX_WRAPPERS and (key := _find_wrapper(checkpoint)) is not None:
        path.append(key)
        checkpoint = checkpoint[key]
    return ".".join(path) or None, checkpoint


def list_weights(checkpoint: Mapping[str, Any]) -> list[str]:
    """Lists the keys of a checkpoint under which there are weights, the preferred one first."""
    inside = [key for key in WRAPPERS if _holds_tensors(checkpoint.get(key))]
    others = [
        key
        for key, value in checkpoint.items()
        if isinstance(key, str) and key not in inside and not NO_WEIGHTS.fullmatch(key)
        if _holds_tensors(value)
    ]
    return inside + others


def _find_wrapper(checkpoint: Mapping[str, Any]) -> str | None:
    if inside := list_weights(checkpoint):
        has_own = any(isinstance(value, Tensor) for value in checkpoint.values())
        return None if has_own and inside[0] not in WRAPPERS else inside[0]
    return next((key for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None)


def _holds_tensors(value: Any, depth: int = MAX_WRAPPERS) -> bool:
    if not isinstance(value, Mapping) or depth == 0:
        return False
    inner = value.values()
    return any(isinstance(part, Tensor) or _holds_tensors(part, depth - 1) for part in inner)


def check_keys(state: Mapping[Any, Any]) -> None:
    """Raises CheckpointError for keys that are no texts."""
    if odd := [key for key in state if not isinstance(key, str)]:
        raise CheckpointError(f"its key {odd[0]!r} is a {type(odd[0]).__name__}, wanted a text")


def without_compiled(state: Mapping[str, Any]) -> dict[str, Any]:
    """Takes what torch.compile adds to keys out of them; they must be texts, and stay different."""
    check_keys(state)
    renamed = {COMPILED.sub("", key): value for key, value in state.items()}
    if len(renamed) != len(state):
        raise CheckpointError("it holds some weights twice, with and without _orig_mod")
    return renamed


def with_state_dict(checkpoint: dict[str, Any], file: str) -> dict[str, Any]:
    """Puts the weights of a checkpoint where mmengine looks for them, under `state_dict`.

    Returns:
        The checkpoint itself where nothing is to be done, else a shallow copy of it.

    Raises:
        CheckpointError: What should be weights are none.
    """
    wrapper, content = unwrap(checkpoint)
    if not any(isinstance(value, Tensor) for value in content.values()):
        return checkpoint
    state = {key: value for key, value in content.items() if isinstance(key, str)}
    if wrapper is not None:
        for key, value in state.items():
            if not isinstance(value, Tensor) and not key.endswith("_extra_state"):
                kind = type(value).__name__
                raise CheckpointError(f"cannot load {file}: {key} is a {kind}, wanted a tensor")
    try:
        state = {printable(key): value for key, value in without_compiled(state).items()}
    except CheckpointError as error:
        raise CheckpointError(f"cannot load {file}: {error}") from None
    if all(key.startswith("module.") for key in state):
        state = {PARALLEL.sub("", key): value for key, value in state.items()}
    if state.keys() == content.keys() and wrapper in ("state_dict", None):
        return checkpoint
    if len(sets := list_weights(checkpoint)) > 1 and wrapper not in ("state_dict", "model"):
        print_log(
            f"{file} holds weights under {list_names(sets)}: {wrapper} is taken; to have another, "
            f"swin-mm convert {file} OUT.pth --to mmdet --prefix {sets[-1]}.",
            logger="current",
        )
    weights = OrderedDict(state)
    if hasattr(content, "_metadata"):
        vars(weights)["_metadata"] = content._metadata
    return weights if wrapper is None else {**checkpoint, "state_dict": weights}


def take_backbone(state: Mapping[str, Any], recognised: Recognised) -> State:
    """Takes the backbone out of a state dict, without prefix; all in it must be tensors."""
    prefix = recognised.prefix
    backbone = {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}
    for key, value in backbone.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{prefix}{key} is a {type(value).__name__}, wanted a tensor")
    return backbone
