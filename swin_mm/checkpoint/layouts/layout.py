"""What a source layout is: a name, a way to recognise it, and a pair of conversions."""

import re
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from torch import Tensor

State = dict[str, Tensor]

# The parameters of a Swin, V1 or V2, by our own names.
PARAMETER = re.compile(
    r"absolute_pos_embed"
    r"|patch_embed\.(proj|norm)\.\w+"
    r"|layers\.\d+\.downsample\.(norm|reduction)\.\w+"
    r"|layers\.\d+\.blocks\.\d+\.("
    r"(norm1|norm2|norm3|attn\.qkv|attn\.proj|attn\.cpb_mlp\.[02]|mlp\.fc1|mlp\.act|mlp\.fc2)\.\w+"
    r"|attn\.(relative_position_bias_table|logit_scale|q_bias|v_bias))"
    r"|norm\d+\.\w+"
)

# Without the norm that V2's largest models have every few blocks, which few libraries know.
PARAMETER_BUT_NORM3 = re.compile(rf"(?!.+\.norm3\.)({PARAMETER.pattern})")

# The norm before the classifier, the classifier, the token of masked image modelling, and buffers
# that follow from the window.
UNUSED = re.compile(
    r"norm\.\w+|head\..+|mask_token"
    r"|.+\.(relative_position_index|relative_coords_table|attn_mask)"
)

# Parts of parameter names that V2 has and V1 has not, in whichever layout.
V2_NAME = re.compile(r"\.(logit_scale$|(cpb_mlp|rpe_mlp|continuous_position_bias_mlp)\.)")


class Conversion(NamedTuple):
    """A state dict in our own layout, and what of the source is not in it.

    Every key of the source is converted into `state`, or named in `unused` or in `unknown`.

    Attributes:
        state: Parameters by their names in `swin_mm.SwinTransformer` or `SwinTransformerV2`.
        unused: Source keys that the layout has and a backbone does not need: the classifier, the
            norm before it, what pretraining needs, and what is derived from the window.
        unknown: Source keys that the layout does not have.
    """

    state: State
    unused: list[str]
    unknown: list[str]


class Layout:
    """One way in which the weights of a Swin are published; here, one that differs in names alone.

    Attributes:
        name: For messages.
        versions: Of Swin that exist in this layout: 1, 2 or both.
        anchor: Regular expression of keys by which the layout is known.
        unused: Keys of the layout that a backbone does not need.
        parameter: Our names of the parameters that the layout has a place for.
    """

    name: ClassVar[str]
    versions: ClassVar[tuple[int, ...]] = (1, 2)
    anchor: ClassVar[str]
    unused = UNUSED
    parameter = PARAMETER

    def is_own(self, state: Iterable[str], prefix: str) -> bool:
        """Whether the backbone under a prefix is of this layout, of those with the same anchor."""
        return True

    def to_own_name(self, key: str) -> str:
        """Gives our name of one of theirs, and anything for what is none of theirs."""
        raise NotImplementedError

    def from_own_name(self, key: str) -> str:
        """Gives their name of one of ours; a parameter's comes back through both."""
        raise NotImplementedError

    def find_prefixes(self, state: Iterable[str]) -> set[str]:
        """Finds what stands before the keys of each backbone that a state dict has in this layout.

        Returns:
            Prefixes, each empty or ending in a dot.
        """
        pattern = re.compile(rf"(|.*?\.){self.anchor}")
        found = {match[1] for key in state if (match := pattern.fullmatch(key))}
        return {prefix for prefix in found if self.is_own(state, prefix)}

    def to_own(self, state: State) -> Conversion:
        """Converts a state dict without prefix."""
        own, unused, unknown = {}, [], []
        for key, value in state.items():
            name = self.to_own_name(key)
            if self.unused.fullmatch(key):
                unused.append(key)
            elif self.parameter.fullmatch(name) and self.from_own_name(name) == key:
                own[name] = value
            else:
                unknown.append(key)
        return Conversion(own, unused, unknown)

    def from_own(self, state: State) -> State:
        """Converts back; `from_own(to_own(state).state)` is `state` without unused keys.

        What the layout has no place for is left out; `list_lost` names it.
        """
        renamed = {self.from_own_name(key): (key, value) for key, value in state.items()}
        return {
            name: value
            for name, (key, value) in renamed.items()
            if self.parameter.fullmatch(key) and self.to_own_name(name) == key
        }

    def list_lost(self, state: State) -> list[str]:
        """Lists the keys of a state dict in our own layout that this one has no place for."""
        kept = self.to_own(self.from_own(state)).state
        return [key for key in state if key not in kept]


def find_version(state: Iterable[str]) -> int:
    """The version of the Swin of a state dict in any layout, by names that V1 lacks."""
    return 2 if any(V2_NAME.search(key) for key in state) else 1
