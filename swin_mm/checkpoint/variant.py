"""Reads the arguments of a backbone back from its weights, to say how two of them differ."""

import re
from collections.abc import Iterator
from math import isqrt
from typing import Any

from swin_mm.checkpoint.layouts import State, find_version

BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
OUTPUT_NORM = re.compile(r"norm\d+")

# A window may differ: what depends on it is resized. A difference in version is an error already.
RESIZABLE = ("version", "window_size", "context_scales")


def read_variant(state: State) -> dict[str, Any]:
    """Reads the arguments of a backbone off its weights, as far as they can be told.

    The state dict is in our own layout, whole or not; with the unused keys of its layout, a window
    can be told in V2 too. Beside arguments of the class there is `version`, 1 or 2; of
    `context_scales` there is their number.
    """
    blocks = {(int(match[1]), int(match[2])) for key in state if (match := BLOCK.match(key))}
    num_stages = 1 + max((stage for stage, _ in blocks), default=-1)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    heads = [_num_heads(shapes, i) for i in range(num_stages)]
    patch = shapes.get("patch_embed.proj.weight", ())
    mlp = shapes.get("layers.0.blocks.0.mlp.fc1.weight", ())
    mix = next((shapes[key] for key in state if key.endswith("attn.context_mix")), ())
    variant = {
        "version": find_version(state),
        "depths": tuple(sum(stage == i for stage, _ in blocks) for i in range(num_stages)),
        "qkv_bias": any(key.endswith(("attn.qkv.bias", "attn.q_bias")) for key in state),
        "patch_norm": any(re.match(r"patch_embed\.norm|.*downsample\.norm", key) for key in state),
        "use_abs_pos_embed": "absolute_pos_embed" in state,
        "context_scales": mix[2] // mix[1] if len(mix) == 3 and mix[1] else 0,
    }
    if None not in heads:
        variant["num_heads"] = tuple(heads)
    if len(patch) == 4:
        variant |= {"embed_dims": patch[0], "in_channels": patch[1], "patch_size": patch[2:]}
    if len(mlp) == 2 and mlp[1]:
        variant["mlp_ratio"] = mlp[0] / mlp[1]
    if window := read_window(state):
        variant["window_size"] = window
    return variant


def read_window(state: State) -> tuple[int, int] | None:
    """Reads `(Wh, Ww)` of a Swin in any layout off the first position parameter that shows it.

    None where nothing shows it, as in a V2 without its buffers, or a table of no square window.
    """
    return next(_windows(state), None)


def list_output_norms(state: State) -> list[str]:
    """Names the norms of single outputs in a state dict of our own layout, such as `norm0`."""
    modules = dict.fromkeys(key.partition(".")[0] for key in state)
    return [name for name in modules if OUTPUT_NORM.fullmatch(name)]


def explain_difference(source: State, target: State) -> str:
    """Says in half a sentence why the weights `source` do not fit the model's, `target`.

    Both are in our own layout; the target may end at an earlier stage.
    """
    theirs, ours = read_variant(source), read_variant(target)
    num_stages = len(ours["depths"])
    differences = []
    for name in sorted(theirs.keys() & ours.keys() - set(RESIZABLE)):
        found, wanted = theirs[name], ours[name]
        if name in ("depths", "num_heads"):
            found = found[:num_stages]
        if found != wanted:
            differences.append(f"{name} is {found} in the checkpoint and {wanted} in the model")
    mixes, wanted = theirs["context_scales"], ours["context_scales"]
    if mixes not in (0, wanted):
        differences.append(f"{mixes} context_scales in the checkpoint and {wanted} in the model")
    return (
        "; ".join(differences)
        or "both have the same arguments: the file is incomplete or was edited"
    )


def _num_heads(shapes: dict[str, tuple[int, ...]], stage: int) -> int | None:
    """Reads the heads of a stage off the first of its bias tables or logit scales."""
    for key, shape in shapes.items():
        if key.startswith(f"layers.{stage}."):
            if key.endswith("relative_position_bias_table") and len(shape) == 2:
                return shape[1]
            if key.endswith("logit_scale") and len(shape) == 3:
                return shape[0]
    return None


def _windows(state: State) -> Iterator[tuple[int, int]]:
    for key, value in state.items():
        shape = tuple(value.shape)
        if key.endswith("relative_coords_table") and len(shape) == 4:
            yield (shape[1] + 1) // 2, (shape[2] + 1) // 2
        elif key.endswith("relative_position_bias_table") and len(shape) == 2:
            side = isqrt(shape[0])
            if side**2 == shape[0] and side % 2:
                yield (side + 1) // 2, (side + 1) // 2
