"""Finds the unit in which a V2's position bias was trained, which its parameters do not hold.

The network behind the bias takes relative positions in units of the training window. A backbone
with another unit would load the same parameters and compute something else. Files of Microsoft,
torchvision and mmpretrain hold the table of positions, and with it the unit.
"""

from math import log2
from typing import Any

from torch import Tensor

from swin_mm.checkpoint.layouts import State
from swin_mm.ops.position import POSITION_SCALE


def find_other_units(state: State, backbone: Any) -> tuple[int, ...]:
    """Compares the units of positions of a checkpoint in any layout with those of a backbone.

    Returns:
        The argument `pretrained_window_sizes` with which the backbone would have the units of the
        checkpoint; empty where it has them, or where the checkpoint does not record it.
    """
    tables = [v for key, v in state.items() if key.endswith(".relative_coords_table")]
    attentions = [(i, block.attn) for i, st in enumerate(backbone.layers) for block in st.blocks]
    if len(tables) < len(attentions):
        return ()
    # Both are in the order of blocks, and those of a stage are alike.
    found = {i: _read_unit(table) for (i, _), table in zip(attentions, tables, strict=False)}
    wanted = {i: getattr(attention, "position_unit", None) for i, attention in attentions}
    if all(unit in (None, wanted[i]) for i, unit in found.items()):
        return ()
    return tuple(unit[0] for i in found if (unit := found[i] or wanted[i]))


def list_assumed_units(state: State, backbone: Any) -> tuple[int, ...]:
    """The training window in tokens that is assumed for each stage of a V2.

    Empty where the checkpoint records it, or the backbone is a V1.
    """
    attentions = [stage.blocks[0].attn for stage in backbone.layers]
    tables = [v for key, v in state.items() if key.endswith(".relative_coords_table")]
    is_recorded = any(_read_unit(table) for table in tables)
    if is_recorded or not all(hasattr(attention, "position_unit") for attention in attentions):
        return ()
    return tuple(attention.position_unit[0] for attention in attentions)


def _read_unit(table: Tensor) -> tuple[int, int] | None:
    """Reads the unit off the largest positions of a table `(1, 2*Wh-1, 2*Ww-1, 2)`."""
    if table.dim() != 4 or table.shape[-1] != 2:
        return None
    units = []
    for axis in (0, 1):
        window = (table.shape[axis + 1] + 1) // 2
        scaled = 2 ** (table[..., axis].max().item() * log2(POSITION_SCALE)) - 1
        if window == 1 or scaled <= 0:
            return None
        units.append(round(POSITION_SCALE * (window - 1) / scaled) + 1)
    return units[0], units[1]
