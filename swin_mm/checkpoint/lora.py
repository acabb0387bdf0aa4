"""Low-rank updates (LoRA) in a state dict: told apart from the weights, and added to them.

A layer with an update of rank r has, beside its own weight W `(out, in)`, A `(r, in)` and B
`(out, r)`, and computes with W + scale * B A. In a file its weight has the name it has without an
update; the scale, one for all layers, is beside them.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from swin_mm.checkpoint.errors import CheckpointError

SCALE = "lora_scale"
UPDATE = re.compile(r"(.+)\.lora_([AB])\.default\.weight")
OF_LORA = re.compile(rf"(.+\.)?{SCALE}|{UPDATE.pattern}")


def without_lora(state: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the state dict as it is without updates; weights are as they are before one."""
    return {key: value for key, value in state.items() if not OF_LORA.fullmatch(key)}


def only_lora(state: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what belongs to the updates of a state dict."""
    return {key: value for key, value in state.items() if OF_LORA.fullmatch(key)}


def merge_lora(state: Mapping[str, Any]) -> dict[str, Any]:
    """Adds low-rank updates to the weights they belong to.

    Returns:
        A state dict without updates, of a model that computes the same. The tensors of `state` are
        not changed.

    Raises:
        CheckpointError: A part of an update is missing, or does not fit the weight.
    """
    merged, updates = without_lora(state), only_lora(state)
    layers = sorted({match[1] for key in updates if (match := UPDATE.fullmatch(key))})
    for layer in layers:
        scale = next((updates[key] for key in _scale_names(layer) if key in updates), None)
        down, up = (updates.get(f"{layer}.lora_{part}.default.weight") for part in "AB")
        weight = merged.get(f"{layer}.weight")
        if scale is None or down is None or up is None or weight is None:
            raise CheckpointError(f"the LoRA update of {layer} is incomplete")
        if weight.shape != (len(up), down.shape[1]) or up.shape[1] != len(down):
            raise CheckpointError(f"the LoRA update of {layer} does not fit its weight")
        # In float32, since the sum of a half-precision weight and a small update would lose it.
        update = scale.float() * (up.float() @ down.float())
        merged[f"{layer}.weight"] = (weight.float() + update).to(weight.dtype)
    if layers:
        print_log(f"merged the LoRA updates of {len(layers)} layers", logger="current")
    return merged


def _scale_names(layer: str) -> list[str]:
    """Where the scale of a layer may be: beside any of the modules around it."""
    parts = layer.split(".")
    return [".".join([*parts[:i], SCALE]) for i in range(len(parts), -1, -1)]


def take_lora(source: Mapping[str, Any], module: nn.Module) -> dict[str, Tensor]:
    """Gives the updates that a backbone with LoRA loads from `source`, which has no prefix.

    Where it has none, they are the backbone's own, which are untrained at first.

    Raises:
        CheckpointError: The source has other updates than the backbone.
    """
    own, given = only_lora(module.state_dict()), only_lora(source)
    if not given:
        if any(value.is_meta for value in own.values()):
            raise CheckpointError(
                "the model is on the meta device, and the weights bring no LoRA updates: build it "
                "on a real device, or load weights with updates"
            )
        return own
    different = [
        key
        for key in sorted({*own, *given})
        if key not in given or key not in own or own[key].shape != given[key].shape
    ]
    if different:
        raise CheckpointError(
            f"its LoRA updates are of other layers or another rank than the model's "
            f"({different[0]}, {len(different)} in all): give model.backbone.lora as in training"
        )
    if not own[SCALE].is_meta and not torch.equal(own[SCALE].cpu(), given[SCALE].cpu()):
        raise CheckpointError(
            f"its LoRA updates have the scale {float(given[SCALE])}, alpha / r of the model's is "
            f"{float(own[SCALE])}: give model.backbone.lora as in training"
        )
    return given
