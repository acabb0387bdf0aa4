"""timm's layout: Microsoft's, with patch merging at the start of the stage that it leads to.

timm before 0.9 wrote Microsoft's own layout, and is recognised as that.

Source:
    `timm/models/swin_transformer.py` and `timm/models/swin_transformer_v2.py` of
    https://github.com/huggingface/pytorch-image-models, version 1.0.
"""

import re
from collections.abc import Iterable

from swin_mm.checkpoint.layouts.layout import PARAMETER_BUT_NORM3, Conversion, Layout, State
from swin_mm.checkpoint.layouts.microsoft import MICROSOFT

MERGING = re.compile(r"layers\.(\d+)\.downsample\.(.+)")

# With `features_only`, stages are named `layers_0` instead of `layers.0`.
FLAT_STAGE = re.compile(r"layers_(\d+)\.")


class Timm(Layout):
    name = "timm"
    anchor = MICROSOFT.anchor
    parameter = PARAMETER_BUT_NORM3

    def is_own(self, state: Iterable[str], prefix: str) -> bool:
        return not MICROSOFT.is_own(state, prefix)

    def to_own(self, state: State) -> Conversion:
        """Moves patch merging to the end of the stage before."""
        nested = {FLAT_STAGE.sub(r"layers.\1.", key): key for key in state}
        own, unused, unknown = super().to_own({name: state[key] for name, key in nested.items()})
        # A stage under both of its names is one too many.
        twice = sorted(state.keys() - nested.values())
        return Conversion(
            own, [nested[name] for name in unused], [nested[name] for name in unknown] + twice
        )

    def to_own_name(self, key: str) -> str:
        return _move_merging(key, -1)

    def from_own_name(self, key: str) -> str:
        return _move_merging(key, 1)


def _move_merging(key: str, stages: int) -> str:
    if re.match(r"norm\d", key):
        return ""  # timm has no norms of outputs
    if match := MERGING.fullmatch(key):
        return f"layers.{int(match[1]) + stages}.downsample.{match[2]}"
    return key


TIMM = Timm()
