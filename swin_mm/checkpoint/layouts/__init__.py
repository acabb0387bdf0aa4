"""Source layouts of Swin weights, one file each, and the way to tell which one a file has."""

from typing import NamedTuple

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts.foreign import describe_foreign
from swin_mm.checkpoint.layouts.huggingface import HUGGINGFACE
from swin_mm.checkpoint.layouts.layout import Conversion, Layout, State, find_version
from swin_mm.checkpoint.layouts.microsoft import MICROSOFT
from swin_mm.checkpoint.layouts.mmdet import MMDET
from swin_mm.checkpoint.layouts.mmpretrain import MMPRETRAIN
from swin_mm.checkpoint.layouts.timm import TIMM
from swin_mm.checkpoint.layouts.torchvision import TORCHVISION

# At most one of them recognises a backbone.
LAYOUTS = (MICROSOFT, MMDET, MMPRETRAIN, TIMM, TORCHVISION, HUGGINGFACE)

# Names of an encoder that is trained and of its average over time, as MoBY has them.
TRAINED, AVERAGED = "encoder.", "encoder_k."

__all__ = [
    "HUGGINGFACE",
    "LAYOUTS",
    "MICROSOFT",
    "MMDET",
    "MMPRETRAIN",
    "TIMM",
    "TORCHVISION",
    "Conversion",
    "Layout",
    "Recognised",
    "State",
    "describe_foreign",
    "find_version",
    "recognise",
]


class Recognised(NamedTuple):
    """What a state dict was recognised as.

    Attributes:
        layout: Its layout.
        prefix: What stands before the backbone's keys, empty or ending in a dot.
        version: Of the Swin, 1 or 2.
        passed_over: Prefixes of other backbones in it, averages of this one.
    """

    layout: Layout
    prefix: str
    version: int
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For example `a Swin V1 in the timm layout`, with the prefix where there is one."""
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"a Swin V{self.version} in the {self.layout.name} layout{under}"


def recognise(state: State) -> Recognised | None:
    """Tells the layout of a state dict by its keys.

    Args:
        state: A state dict of a backbone or of a whole model, with any prefix.

    Returns:
        What it is, or None when there is no Swin in it. Of MoBY's two encoders, the one that was
        trained is taken.

    Raises:
        CheckpointError: When it holds several backbones, such as a teacher's and a student's.
    """
    found = {prefix: layout for layout in LAYOUTS for prefix in layout.find_prefixes(state)}
    averages = tuple(
        prefix
        for prefix in found
        if prefix.endswith(AVERAGED) and prefix.removesuffix(AVERAGED) + TRAINED in found
    )
    prefixes = sorted(found.keys() - averages)
    if len(prefixes) > 1:
        raise CheckpointError(
            f"it holds {len(prefixes)} backbones, under {prefixes}: choose one with "
            f"init_cfg=dict(type='Pretrained', checkpoint=..., prefix={prefixes[-1]!r})"
        )
    if not prefixes:
        return None
    prefix = prefixes[0]
    version = find_version(key for key in state if key.startswith(prefix))
    return Recognised(found[prefix], prefix, version, averages)
