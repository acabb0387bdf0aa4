"""Reads the arguments of a backbone back from its weights, to say how two of them differ."""

import re
from typing import Any

from swin_mm.checkpoint.layouts import State

BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")


def read_variant(state: State) -> dict[str, Any]:
    """Reads a variant.

    Args:
        state: A state dict in our own layout, whole or not.

    Returns:
        Arguments of `swin_mm.SwinTransformer`, those that can be told from `state`.
    """
    blocks = {(int(match[1]), int(match[2])) for key in state if (match := BLOCK.match(key))}
    num_stages = 1 + max((stage for stage, _ in blocks), default=-1)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    heads = [_num_heads(shapes, i) for i in range(num_stages)]
    patch = shapes.get("patch_embed.proj.weight", ())
    mlp = shapes.get("layers.0.blocks.0.mlp.fc1.weight", ())
    variant = {
        "depths": tuple(sum(stage == i for stage, _ in blocks) for i in range(num_stages)),
        "qkv_bias": any(key.endswith("attn.qkv.bias") for key in state),
        "patch_norm": any(re.match(r"patch_embed\.norm|.*downsample\.norm", key) for key in state),
        "use_abs_pos_embed": "absolute_pos_embed" in state,
    }
    if None not in heads:
        variant["num_heads"] = tuple(heads)
    if len(patch) == 4:
        variant |= {"embed_dims": patch[0], "in_channels": patch[1], "patch_size": patch[2:]}
    if len(mlp) == 2 and mlp[1]:
        variant["mlp_ratio"] = mlp[0] / mlp[1]
    return variant


def explain_difference(source: State, target: State) -> str:
    """Says which arguments differ between two state dicts in our own layout.

    Args:
        source: Of a checkpoint.
        target: Of the model that takes it; it may end at an earlier stage.

    Returns:
        The likely cause why `source` does not fit, in half a sentence.
    """
    theirs, ours = read_variant(source), read_variant(target)
    num_stages = len(ours["depths"])
    differences = []
    for name in sorted(theirs.keys() & ours.keys()):
        found, wanted = theirs[name], ours[name]
        if name in ("depths", "num_heads"):
            found = found[:num_stages]
        if found != wanted:
            differences.append(f"{name} is {found} in the checkpoint and {wanted} in the model")
    return (
        "; ".join(differences)
        or "both have the same arguments: the file is incomplete or was edited"
    )


def _num_heads(shapes: dict[str, tuple[int, ...]], stage: int) -> int | None:
    """Reads the heads of a stage off the first of its bias tables."""
    tables = (
        shape[1]
        for key, shape in shapes.items()
        if key.startswith(f"layers.{stage}.") and key.endswith("bias_table") and len(shape) == 2
    )
    return next(tables, None)
