"""mmpretrain's layout: mmdet's, and for V2 with patch merging at the start of a stage.

Source:
    `mmpretrain/models/backbones/swin_transformer.py` and `swin_transformer_v2.py`, and
    `mmpretrain/models/utils/embed.py` of mmpretrain 1.2.0.
"""

import re

from swin_mm.checkpoint.layouts import layout, mmdet
from swin_mm.checkpoint.layouts.layout import Conversion, Layout, Renaming, State, find_version

MERGING = re.compile(r"(stages|layers)\.(\d+)\.downsample\.(.+)")


def find_prefixes(state: State) -> set[str]:
    """Finds the backbones of a state dict; see `Layout.find_prefixes`."""
    prefixes = layout.find_prefixes(mmdet.ANCHOR, state)
    return {prefix for prefix in prefixes if mmdet.is_mmpretrain(state, prefix)}


def to_own(state: State) -> Conversion:
    """Renames the parameters and reorders those of patch merging; see `Layout.to_own`."""
    renaming = RENAMING_V2 if find_version(state) == 2 else mmdet.RENAMING
    own, surplus, unknown = renaming.to_own(state)
    return Conversion(mmdet.from_unfold_order(own), surplus, unknown)


def from_own(state: State) -> State:
    """Gives a state dict that mmpretrain's backbones load as it is."""
    renaming = RENAMING_V2 if find_version(state) == 2 else mmdet.RENAMING
    return renaming.from_own(mmdet.to_unfold_order(state))


def _to_own_name(key: str) -> str:
    return _move_merging(mmdet.to_own_name(key), -1)


def _from_own_name(key: str) -> str:
    return _move_merging(mmdet.from_own_name(key), 1)


def _move_merging(key: str, stages: int) -> str:
    if match := MERGING.fullmatch(key):
        return f"{match[1]}.{int(match[2]) + stages}.downsample.{match[3]}"
    return key


RENAMING_V2 = Renaming(_to_own_name, _from_own_name)

MMPRETRAIN = Layout("mmpretrain", (1, 2), find_prefixes, to_own, from_own)
