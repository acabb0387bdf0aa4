"""Source layouts of Swin weights, one file each, and which one a file has."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts.huggingface import HUGGINGFACE
from swin_mm.checkpoint.layouts.layout import Layout, State, find_version
from swin_mm.checkpoint.layouts.microsoft import MICROSOFT
from swin_mm.checkpoint.layouts.mmdet import MMDET
from swin_mm.checkpoint.layouts.mmpretrain import MMPRETRAIN
from swin_mm.checkpoint.layouts.timm import TIMM
from swin_mm.checkpoint.layouts.torchvision import TORCHVISION
from swin_mm.checkpoint.report import list_names

# At most one of them recognises a backbone.
LAYOUTS = (MICROSOFT, MMDET, MMPRETRAIN, TIMM, TORCHVISION, HUGGINGFACE)

# Names of an encoder that is trained and of its average over time, as MoBY has them.
TRAINED, AVERAGED = "encoder.", "encoder_k."

# Keys by which other models are known, most specific first.
FOREIGN = (
    ("Swin V2-CR of timm, another model than V2", r".*\.attn\.meta_mlp\..+"),
    ("ResNet", r"(.*\.)?layer1\.0\.conv1\.weight"),
    ("ConvNeXt", r"(.*\.)?stages\.\d+\.(blocks\.)?\d+\.(depthwise_conv|dwconv|conv_dw)\.weight"),
    ("ViT", r"(.*\.)?(blocks|layers)\.\d+\.attn\.(qkv\.weight|attn\.in_proj_weight)"),
)


class Recognised(NamedTuple):
    """What a state dict was recognised as: layout, prefix of its keys, version of the Swin.

    Attributes:
        skipped_prefixes: Prefixes of other backbones in it, averages of this one.
    """

    layout: Layout
    prefix: str
    version: int
    skipped_prefixes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For example `a Swin V1 in the timm layout`, with the prefix where there is one."""
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"a Swin V{self.version} in the {self.layout.name} layout{under}"


def recognise(state: State) -> Recognised | None:
    """Recognises the layout of a state dict, of a backbone or of a whole model, by its keys.

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


def describe_foreign(keys: Iterable[str]) -> str:
    """Describes keys, such as `it looks like a ResNet (layer1.0.conv1.weight)`, or names some."""
    keys = list(keys)
    for name, pattern in FOREIGN:
        match = next((key for key in keys if re.fullmatch(pattern, key)), None)
        if match:
            return f"it looks like a {name} ({match})"
    return f"its keys are {list_names(keys[:3])}{', ...' if len(keys) > 3 else ''}"
