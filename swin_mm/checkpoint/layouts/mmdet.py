"""The layout of mmdet and mmseg: other names, and patch merging in the order of `nn.Unfold`.

Source:
    `mmdet/models/backbones/swin.py` and `mmdet/models/layers/transformer/utils.py` of mmdet 3.3.0;
    mmseg 1.2.2 has the same.
"""

import re
from functools import partial

from torch import Tensor

from swin_mm.checkpoint.layouts import microsoft
from swin_mm.checkpoint.layouts.layout import Conversion, Layout, State, find_prefixes

ANCHOR = r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.relative_position_bias_table"

# Parts of names: (theirs, ours).
RENAMES = (
    ("patch_embed.projection.", "patch_embed.proj."),
    ("stages.", "layers."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.0.1.", ".mlp.act."),
    (".ffn.layers.1.", ".mlp.fc2."),
)

MERGING = re.compile(r"layers\.\d+\.downsample\.(norm|reduction)\.\w+")

# Position of each neighbour of a 2x2 patch, (0,0) (0,1) (1,0) (1,1) for `nn.Unfold`, in Microsoft's
# order (0,0) (1,0) (0,1) (1,1); the swap undoes itself.
NEIGHBOUR_ORDER = [0, 2, 1, 3]


def to_own(state: State) -> Conversion:
    """Renames the parameters and reorders those of patch merging; see `Layout.to_own`."""
    own, surplus, unknown = {}, [], []
    for key, value in state.items():
        name = _to_own_name(key)
        if microsoft.SURPLUS.fullmatch(key):
            surplus.append(key)
        # Going back tells a name of ours, which must not pass for one of theirs.
        elif microsoft.PARAMETER.fullmatch(name) and _from_own_name(name) == key:
            own[name] = _from_unfold_order(value) if MERGING.fullmatch(name) else value
        else:
            unknown.append(key)
    return Conversion(own, surplus, unknown)


def from_own(state: State) -> State:
    """Gives a state dict that mmdet's and mmseg's `SwinTransformer` load as it is."""
    return {
        _from_own_name(key): _to_unfold_order(value) if MERGING.fullmatch(key) else value
        for key, value in state.items()
    }


def _to_own_name(key: str) -> str:
    for theirs, ours in RENAMES:
        key = key.replace(theirs, ours)
    return key


def _from_own_name(key: str) -> str:
    for theirs, ours in RENAMES:
        key = key.replace(ours, theirs)
    return key


def _from_unfold_order(tensor: Tensor) -> Tensor:
    """Reorders the last axis from (channel, neighbour) to (neighbour, channel)."""
    if not _has_neighbours(tensor):
        return tensor
    parts = tensor.unflatten(-1, (-1, 4))[..., NEIGHBOUR_ORDER]  # (..., C, 4)
    return parts.transpose(-1, -2).flatten(-2)


def _to_unfold_order(tensor: Tensor) -> Tensor:
    """Reorders the last axis from (neighbour, channel) to (channel, neighbour)."""
    if not _has_neighbours(tensor):
        return tensor
    parts = tensor.unflatten(-1, (4, -1))[..., NEIGHBOUR_ORDER, :]  # (..., 4, C)
    return parts.transpose(-1, -2).flatten(-2)


def _has_neighbours(tensor: Tensor) -> bool:
    """False for a tensor of a wrong shape, which is reported by whoever knows the right one."""
    return tensor.dim() > 0 and tensor.shape[-1] > 0 and tensor.shape[-1] % 4 == 0


MMDET = Layout("mmdet", partial(find_prefixes, ANCHOR), to_own, from_own)
