"""Fits converted weights to one backbone, or says why they do not fit."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import State, find_version
from swin_mm.checkpoint.layouts.layout import Conversion
from swin_mm.checkpoint.lora import without_lora
from swin_mm.checkpoint.report import LoadReport
from swin_mm.checkpoint.resize import (
    resize_bias_table,
    resize_patches,
    resize_position_embedding,
)
from swin_mm.checkpoint.variant import explain_difference, list_output_norms

BIAS_TABLE = re.compile(r"layers\.(\d+)\.blocks\.\d+\.attn\.relative_position_bias_table")
PATCHES = "patch_embed.proj.weight"
CONTEXT_MIX = re.compile(r"layers\.\d+\.blocks\.\d+\.attn\.context_mix")
STAGE = re.compile(r"layers\.(\d+)\.")

# An error names this many parameters of each kind.
MAX_EXAMPLES = 3


def fit(conversion: Conversion, backbone: nn.Module) -> tuple[State, LoadReport]:
    """Fits converted weights to a `swin_mm.SwinTransformer` or V2, whose values are not changed.

    What may differ: the norms of outputs, stages after the last output, the window, the size of
    absolute position embeddings, the patch size and the channels of the image. A classifier, whose
    last stage alone may have a norm, is completed with the backbone's own, so that it loads under
    `strict=True` too; one that has more norms and lacks some is left so, and the loader's `strict`
    decides. Weights without mixed context leave that of the backbone at the identity.

    Returns:
        Parameters by the backbone's names, in its shapes, and how they came about.

    Raises:
        CheckpointError: The version is another, or a parameter is missing, is left over, or has
            another shape.
    """
    source = conversion.state
    target = without_lora(backbone.state_dict(keep_vars=True))
    _check_version(source, target)
    unused = _unused_keys(source, target)
    leftover = [key for key in source if key not in target and key not in unused]
    norms = list_output_norms(source)
    initial = [norm for norm in list_output_norms(target) if norm not in norms]
    lacking = {key for key in target if key not in source}
    kept = [key for key in target if key in lacking and key.split(".")[0] in initial]
    plain = _plain_mixes(source, target)
    missing = [key for key in target if key in lacking and key not in (*kept, *plain)]

    state, misshaped = {}, _uneven_tables(source)
    for key in (key for key in target if key in source):
        try:
            state[key] = _resize(key, source[key], target[key], backbone)
        except CheckpointError as error:
            misshaped.append(f"{key}: {error}")
            continue
        if state[key].shape != target[key].shape:
            found, wanted = tuple(source[key].shape), tuple(target[key].shape)
            misshaped.append(f"{key}: {found} in the checkpoint, {wanted} in the model")
    faults = [
        *_count("missing", missing),
        *_count("unexpected", [*conversion.unknown, *leftover]),
        *_count("of another shape", misshaped),
    ]
    if faults:
        raise CheckpointError(f"{', '.join(faults)}; {explain_difference(source, target)}")

    report = LoadReport(
        loaded=len(state),
        total=len(target),
        dropped=(*conversion.unused, *unused),
        initial=tuple(initial),
        resized=tuple(k for k in target if k in state and state[k] is not source[k]),
        plain_blocks=len(plain),
    )
    if norms in ([], [f"norm{_num_stages(source) - 1}"]):
        state |= {key: _initial_norm(key, target[key]) for key in kept}
    state |= {key: torch.zeros_like(target[key], device=_real_device(target[key])) for key in plain}
    return state, report


def _check_version(source: State, target: State) -> None:
    theirs, ours = find_version(source), find_version(target)
    if theirs != ours:
        name = "SwinTransformer" if theirs == 1 else "SwinTransformerV2"
        raise CheckpointError(
            f"the model is a Swin V{ours}, whose attention has other parameters than V{theirs}'s: "
            f"build the model with type='swin_mm.{name}', or take weights of V{ours}"
        )


def _plain_mixes(source: State, target: State) -> list[str]:
    """Lists the mixed-context parameters of the target where the source has none at all."""
    if any(CONTEXT_MIX.fullmatch(key) for key in source):
        return []
    return [key for key in target if CONTEXT_MIX.fullmatch(key)]


def _unused_keys(source: State, target: State) -> list[str]:
    """Finds parameters of stages and outputs that the target does not build."""
    num_stages = _num_stages(target)
    unused_norms = set(list_output_norms(source)) - set(list_output_norms(target))
    merging: tuple[str, ...] = ()
    if _num_stages(source) > num_stages:
        # It leads to the first stage that the target lacks.
        merging = (f"layers.{num_stages - 1}.downsample.",)
    unused = []
    for key in source:
        stage = STAGE.match(key)
        beyond = stage is not None and int(stage[1]) >= num_stages
        if beyond or key.split(".")[0] in unused_norms or key.startswith(merging):
            unused.append(key)
    return unused


def _num_stages(state: State) -> int:
    stages = (STAGE.match(key) for key in state)
    return 1 + max((int(match[1]) for match in stages if match), default=-1)


def _resize(key: str, value: Tensor, target: Tensor, backbone: Any) -> Tensor:
    """Fits what depends on sizes; what differs in more than size is returned as it is."""
    if not value.numel() or not value.is_floating_point():
        return value
    if key == PATCHES and value.dim() == 4 and value.shape[0] == target.shape[0]:
        return resize_patches(value, target.shape[1], (target.shape[2], target.shape[3]))
    if value.dim() != target.dim() or value.shape[-1] != target.shape[-1]:
        return value
    if BIAS_TABLE.fullmatch(key):
        attention = backbone.get_submodule(key.rpartition(".")[0])
        return resize_bias_table(value, attention.window_size)
    if key == "absolute_pos_embed" and value.shape[0] == 1:
        return resize_position_embedding(value, backbone.pos_embed_size)
    return value


def _uneven_tables(source: State) -> list[str]:
    """Finds bias tables of another length than the first of their stage.

    The blocks of a stage share one window, so such a table is damaged. It would otherwise pass for
    that of another window and be resized.
    """
    rows: dict[str, int] = {}
    uneven = []
    for key, value in source.items():
        if (match := BIAS_TABLE.fullmatch(key)) and value.dim() == 2:
            expected = rows.setdefault(match[1], len(value))
            if len(value) != expected:
                uneven.append(f"{key}: {len(value)} rows, others of its stage have {expected}")
    return uneven


def _initial_norm(key: str, own: Tensor) -> Tensor:
    """The backbone's own value; on the meta device, which has none, that of an untrained norm."""
    if not own.is_meta:
        return own
    value = 1.0 if key.endswith(".weight") else 0.0
    return torch.full_like(own, value, device="cpu")


def _real_device(tensor: Tensor) -> torch.device | str:
    return "cpu" if tensor.is_meta else tensor.device


def _count(kind: str, items: Iterable[str]) -> list[str]:
    items = list(items)
    if not items:
        return []
    more = ", ..." if len(items) > MAX_EXAMPLES else ""
    return [f"{len(items)} {kind} ({', '.join(items[:MAX_EXAMPLES])}{more})"]
