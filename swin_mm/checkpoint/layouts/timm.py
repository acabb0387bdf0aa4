"""timm's layout: Microsoft's, with patch merging at the start of the stage that it leads to.

timm before 0.9 wrote Microsoft's own layout, and is recognised as that.

Source:
    `timm/models/swin_transformer.py` and `timm/models/swin_transformer_v2.py` of
    https://github.com/huggingface/pytorch-image-models, version 1.0.
"""

import re

from swin_mm.checkpoint.layouts import layout, microsoft
from swin_mm.checkpoint.layouts.layout import (
    PARAMETER_BUT_NORM3,
    Conversion,
    Layout,
    Renaming,
    State,
)

MERGING = re.compile(r"layers\.(\d+)\.downsample\.(.+)")

# With `features_only`, stages are named `layers_0` instead of `layers.0`.
FLAT_STAGE = re.compile(r"layers_(\d+)\.")


def find_prefixes(state: State) -> set[str]:
    """Finds the backbones of a state dict; see `Layout.find_prefixes`."""
    prefixes = layout.find_prefixes(microsoft.ANCHOR, state)
    return {prefix for prefix in prefixes if microsoft.merges_at_the_start(state, prefix)}


def to_own(state: State) -> Conversion:
    """Moves patch merging to the end of the stage before; see `Layout.to_own`."""
    nested = {FLAT_STAGE.sub(r"layers.\1.", key): key for key in state}
    conversion = RENAMING.to_own({name: state[key] for name, key in nested.items()})
    return Conversion(
        conversion.state,
        [nested[name] for name in conversion.surplus],
        # A stage under both of its names is one too many.
        [nested[name] for name in conversion.unknown] + sorted(state.keys() - nested.values()),
    )


def _to_own_name(key: str) -> str:
    return _move_merging(key, -1)


def _from_own_name(key: str) -> str:
    return _move_merging(key, 1)


def _move_merging(key: str, stages: int) -> str:
    if re.match(r"norm\d", key):
        return ""  # timm has no norms of outputs
    if match := MERGING.fullmatch(key):
        return f"layers.{int(match[1]) + stages}.downsample.{match[2]}"
    return key


RENAMING = Renaming(_to_own_name, _from_own_name, parameter=PARAMETER_BUT_NORM3)

TIMM = Layout("timm", (1, 2), find_prefixes, to_own, RENAMING.from_own)
