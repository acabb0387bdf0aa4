"""What a source layout is: a name, a way to recognise it, and a pair of conversions."""

import re
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

State = dict[str, Tensor]


class Conversion(NamedTuple):
    """A state dict in our own layout, and what of the source is not in it.

    Every key of the source is converted into `state`, or named in `surplus` or in `unknown`.

    Attributes:
        state: Parameters by their names in `swin_mm.SwinTransformer`.
        surplus: Source keys that the layout has and a backbone does not need: the classifier, the
            norm before it, and what is derived from the window.
        unknown: Source keys that the layout does not have.
    """

    state: State
    surplus: list[str]
    unknown: list[str]


class Layout(NamedTuple):
    """One way in which the weights of a Swin are published.

    Attributes:
        name: For messages.
        find_prefixes: Gives what stands before the backbone's keys, once for each backbone that a
            state dict holds in this layout; empty when it holds none.
        to_own: Converts a state dict without prefix.
        from_own: Converts back; `from_own(to_own(state).state)` is `state` without the surplus.
    """

    name: str
    find_prefixes: Callable[[State], set[str]]
    to_own: Callable[[State], Conversion]
    from_own: Callable[[State], State]


def find_prefixes(anchor: str, state: State) -> set[str]:
    """Collects what stands before `anchor` in the keys of a state dict.

    Args:
        anchor: Regular expression of keys that the layout has and no other one.
        state: The state dict.

    Returns:
        Prefixes, each empty or ending in a dot.
    """
    pattern = re.compile(rf"(|.*?\.){anchor}")
    return {match[1] for key in state if (match := pattern.fullmatch(key))}
