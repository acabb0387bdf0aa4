"""mmpretrain's layout: mmdet's, and for V2 with patch merging at the start of a stage.

Source:
    `mmpretrain/models/backbones/swin_transformer.py` and `swin_transformer_v2.py`, and
    `mmpretrain/models/utils/embed.py` of mmpretrain 1.2.0.
"""

import re
from collections.abc import Iterable

from swin_mm.checkpoint.layouts.layout import Conversion, State, find_version
from swin_mm.checkpoint.layouts.mmdet import MMDET, Mmdet

MERGING = re.compile(r"(stages|layers)\.(\d+)\.downsample\.(.+)")


class Mmpretrain(Mmdet):
    name = "mmpretrain"
    versions = (1, 2)

    def is_own(self, state: Iterable[str], prefix: str) -> bool:
        return not MMDET.is_own(state, prefix)

    def to_own(self, state: State) -> Conversion:
        return super().to_own(state) if find_version(state) == 2 else MMDET.to_own(state)

    def from_own(self, state: State) -> State:
        return super().from_own(state) if find_version(state) == 2 else MMDET.from_own(state)

    def to_own_name(self, key: str) -> str:
        return _move_merging(super().to_own_name(key), -1)

    def from_own_name(self, key: str) -> str:
        return _move_merging(super().from_own_name(key), 1)


def _move_merging(key: str, stages: int) -> str:
    if match := MERGING.fullmatch(key):
        return f"{match[1]}.{int(match[2]) + stages}.downsample.{match[3]}"
    return key


MMPRETRAIN = Mmpretrain()
