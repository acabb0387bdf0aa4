"""Names what a state dict looks like when it is in none of the layouts that can be read."""

import re
from collections.abc import Iterable

from swin_mm.checkpoint.report import list_names

# Keys by which other models are known, most specific first.
FOREIGN = (
    ("Swin V2-CR of timm, another model than V2", r".*\.attn\.meta_mlp\..+"),
    ("ResNet", r"(.*\.)?layer1\.0\.conv1\.weight"),
    ("ConvNeXt", r"(.*\.)?stages\.\d+\.(blocks\.)?\d+\.(depthwise_conv|dwconv|conv_dw)\.weight"),
    ("ViT", r"(.*\.)?(blocks|layers)\.\d+\.attn\.(qkv\.weight|attn\.in_proj_weight)"),
)


def describe_foreign(keys: Iterable[str]) -> str:
    """Describes keys for an error message.

    Args:
        keys: Keys of a state dict, not empty.

    Returns:
        For example `it looks like a ResNet (layer1.0.conv1.weight)`, or the first keys.
    """
    keys = list(keys)
    for name, pattern in FOREIGN:
        match = next((key for key in keys if re.fullmatch(pattern, key)), None)
        if match:
            return f"it looks like a {name} ({match})"
    return f"its keys are {list_names(keys[:3])}{', ...' if len(keys) > 3 else ''}"
