"""Source layouts of Swin weights, one file each, and the way to tell which one a file has."""

from typing import NamedTuple

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts.foreign import describe_foreign
from swin_mm.checkpoint.layouts.layout import Conversion, Layout, State
from swin_mm.checkpoint.layouts.microsoft import MICROSOFT
from swin_mm.checkpoint.layouts.mmdet import MMDET

# The first that recognises a state dict reads it.
LAYOUTS = (MMDET, MICROSOFT)

__all__ = [
    "LAYOUTS",
    "MICROSOFT",
    "MMDET",
    "Conversion",
    "Layout",
    "Recognised",
    "State",
    "describe_foreign",
    "recognise",
]


class Recognised(NamedTuple):
    """The layout of a state dict, and what stands before the backbone's keys in it."""

    layout: Layout
    prefix: str


def recognise(state: State) -> Recognised | None:
    """Tells the layout of a state dict by its keys.

    Args:
        state: A state dict of a backbone or of a whole model, with any prefix.

    Returns:
        Layout and prefix, or None when there is no Swin in it.

    Raises:
        CheckpointError: When it holds several backbones, such as a teacher's and a student's.
    """
    for layout in LAYOUTS:
        prefixes = sorted(layout.find_prefixes(state))
        if len(prefixes) > 1:
            raise CheckpointError(
                f"it holds {len(prefixes)} backbones, under {prefixes}: choose one with "
                f"init_cfg=dict(type='Pretrained', checkpoint=..., prefix={prefixes[-1]!r})"
            )
        if prefixes:
            return Recognised(layout, prefixes[0])
    return None
