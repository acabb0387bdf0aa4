"""What a source layout is: a name, a way to recognise it, and a pair of conversions."""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

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
SURPLUS = re.compile(
    r"norm\.\w+|head\..+|mask_token"
    r"|.+\.(relative_position_index|relative_coords_table|attn_mask)"
)

# Parts of parameter names that V2 has and V1 has not, in whichever layout.
V2_NAME = re.compile(r"\.(logit_scale$|(cpb_mlp|rpe_mlp|continuous_position_bias_mlp)\.)")


class Conversion(NamedTuple):
    """A state dict in our own layout, and what of the source is not in it.

    Every key of the source is converted into `state`, or named in `surplus` or in `unknown`.

    Attributes:
        state: Parameters by their names in `swin_mm.SwinTransformer` or `SwinTransformerV2`.
        surplus: Source keys that the layout has and a backbone does not need: the classifier, the
            norm before it, what pretraining needs, and what is derived from the window.
        unknown: Source keys that the layout does not have.
    """

    state: State
    surplus: list[str]
    unknown: list[str]


class Layout(NamedTuple):
    """One way in which the weights of a Swin are published.

    Attributes:
        name: For messages.
        versions: Of Swin that exist in this layout: 1, 2 or both.
        find_prefixes: Gives what stands before the backbone's keys, once for each backbone that a
            state dict holds in this layout; empty when it holds none.
        to_own: Converts a state dict without prefix.
        from_own: Converts back; `from_own(to_own(state).state)` is `state` without the surplus. It
            leaves out what the layout has no place for; `list_lost` names that.
    """

    name: str
    versions: tuple[int, ...]
    find_prefixes: Callable[[State], set[str]]
    to_own: Callable[[State], Conversion]
    from_own: Callable[[State], State]

    def list_lost(self, state: State) -> list[str]:
        """Lists the parameters of our own layout that this one has no place for.

        Args:
            state: A state dict in our own layout.

        Returns:
            Keys of `state` that do not come back from this layout, such as the norms of outputs
            where a layout knows classifiers only.
        """
        kept = self.to_own(self.from_own(state)).state
        return [key for key in state if key not in kept]


class Renaming(NamedTuple):
    """The part of a layout that is names.

    Attributes:
        to_own_name: Gives our name of one of theirs, and anything for what is none of theirs.
        from_own_name: Gives their name of one of ours, and anything for what they lack. A key is a
            parameter of the layout when it comes back through both.
        surplus: Keys of the layout that a backbone does not need.
        parameter: Our names of the parameters that the layout has a place for.
    """

    to_own_name: Callable[[str], str]
    from_own_name: Callable[[str], str]
    surplus: re.Pattern = SURPLUS
    parameter: re.Pattern = PARAMETER

    def to_own(self, state: State) -> Conversion:
        """Renames a state dict; tensors are the source's own. See `Layout.to_own`."""
        own, surplus, unknown = {}, [], []
        for key, value in state.items():
            name = self.to_own_name(key)
            if self.surplus.fullmatch(key):
                surplus.append(key)
            elif self.parameter.fullmatch(name) and self.from_own_name(name) == key:
                own[name] = value
            else:
                unknown.append(key)
        return Conversion(own, surplus, unknown)

    def from_own(self, state: State) -> State:
        """Renames a state dict in our own layout; see `Layout.from_own`."""
        renamed = {self.from_own_name(key): (key, value) for key, value in state.items()}
        return {
            name: value
            for name, (key, value) in renamed.items()
            if self.parameter.fullmatch(key) and self.to_own_name(name) == key
        }


def find_prefixes(anchor: str, state: Iterable[str]) -> set[str]:
    """Collects what stands before `anchor` in the keys of a state dict.

    Args:
        anchor: Regular expression of keys that the layout has and no other one.
        state: The state dict.

    Returns:
        Prefixes, each empty or ending in a dot.
    """
    pattern = re.compile(rf"(|.*?\.){anchor}")
    return {match[1] for key in state if (match := pattern.fullmatch(key))}


def find_version(state: Iterable[str]) -> int:
    """Tells by names that V1 lacks whether the Swin of a state dict, in any layout, is 1 or 2."""
    return 2 if any(V2_NAME.search(key) for key in state) else 1
