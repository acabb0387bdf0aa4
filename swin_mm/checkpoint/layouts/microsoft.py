"""Microsoft's layout, which is also our own: classification, detection and segmentation.

Source:
    `models/swin_transformer.py` of https://github.com/microsoft/Swin-Transformer, and
    `swin_transformer.py` of the repositories Swin-Transformer-Object-Detection and
    Swin-Transformer-Semantic-Segmentation of https://github.com/SwinTransformer.
"""

import re
from functools import partial

from swin_mm.checkpoint.layouts.layout import Conversion, Layout, State, find_prefixes

ANCHOR = r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table"

PARAMETER = re.compile(
    r"absolute_pos_embed"
    r"|patch_embed\.(proj|norm)\.\w+"
    r"|layers\.\d+\.downsample\.(norm|reduction)\.\w+"
    r"|layers\.\d+\.blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.act|mlp\.fc2)\.\w+"
    r"|layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table"
    r"|norm\d+\.\w+"
)

# The norm before the classifier, the classifier, and buffers that follow from the window.
SURPLUS = re.compile(r"norm\.(weight|bias)|head\..+|.+\.(relative_position_index|attn_mask)")


def to_own(state: State) -> Conversion:
    """Takes over the parameters; see `Layout.to_own`.

    The detection code keeps `absolute_pos_embed` as `(1, C, Ph, Pw)`; ours is `(1, Ph*Pw, C)`, as
    in classification.
    """
    own = {key: value for key, value in state.items() if PARAMETER.fullmatch(key)}
    embedding = own.get("absolute_pos_embed")
    if embedding is not None and embedding.dim() == 4:
        own["absolute_pos_embed"] = embedding.flatten(2).transpose(1, 2)
    others = [key for key in state if key not in own]
    surplus = [key for key in others if SURPLUS.fullmatch(key)]
    unknown = [key for key in others if not SURPLUS.fullmatch(key)]
    return Conversion(own, surplus, unknown)


def from_own(state: State) -> State:
    """Gives the names and shapes of classification, which are our own."""
    return dict(state)


MICROSOFT = Layout("Microsoft", partial(find_prefixes, ANCHOR), to_own, from_own)
