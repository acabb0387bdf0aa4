"""The layout of mmdet and mmseg: other names, and patch merging in the order of `nn.Unfold`.

Source:
    `mmdet/models/backbones/swin.py` and `mmdet/models/layers/transformer/utils.py` of mmdet 3.3.0;
    mmseg 1.2.2 has the same.
"""

import re

from torch import Tensor

from swin_mm.checkpoint.layouts import layout
from swin_mm.checkpoint.layouts.layout import Conversion, Layout, Renaming, State

# mmpretrain shares it.
ANCHOR = r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.(relative_position_bias_table|logit_scale)"

# Parts of names: (theirs, ours).
RENAMES = (
    ("patch_embed.projection.", "patch_embed.proj."),
    ("stages.", "layers."),
    (".attn.w_msa.", ".attn."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.0.1.", ".mlp.act."),
    (".ffn.layers.1.", ".mlp.fc2."),
)

# In V2, the norm comes after the reduction and sees no neighbours.
REDUCTION = re.compile(r"layers\.\d+\.downsample\.reduction\.\w+")
NORM_BEFORE_REDUCTION = re.compile(r"layers\.\d+\.downsample\.norm\.\w+")

# Position of each neighbour of a 2x2 patch, (0,0) (0,1) (1,0) (1,1) for `nn.Unfold`, in Microsoft's
# order (0,0) (1,0) (0,1) (1,1); the swap undoes itself.
NEIGHBOUR_ORDER = [0, 2, 1, 3]


def find_prefixes(state: State) -> set[str]:
    """Finds the backbones of a state dict; see `Layout.find_prefixes`."""
    prefixes = layout.find_prefixes(ANCHOR, state)
    return {prefix for prefix in prefixes if not is_mmpretrain(state, prefix)}


def is_mmpretrain(state: State, prefix: str) -> bool:
    """Tells mmpretrain's layout from mmdet's; in V1 both have the same names and tensors.

    Args:
        state: A state dict that `ANCHOR` matches.
        prefix: What stands before its keys.

    Returns:
        Whether it is a V2, which mmdet lacks, or has a norm at its last stage alone, as a
        classifier has.
    """
    inside = [key[len(prefix) :] for key in state if key.startswith(prefix)]
    norms = {int(match[1]) for key in inside if (match := re.match(r"norm(\d+)\.", key))}
    stages = {int(match[1]) for key in inside if (match := re.match(r"stages\.(\d+)\.", key))}
    # Before its second version, mmpretrain's norm had no number.
    return layout.find_version(inside) == 2 or norms == {max(stages)} or "norm.weight" in inside


def to_own(state: State) -> Conversion:
    """Renames the parameters and reorders those of patch merging; see `Layout.to_own`."""
    own, surplus, unknown = RENAMING.to_own(state)
    return Conversion(from_unfold_order(own), surplus, unknown)


def from_own(state: State) -> State:
    """Gives a state dict that mmdet's and mmseg's `SwinTransformer` load as it is."""
    return RENAMING.from_own(to_unfold_order(state))


def to_own_name(key: str) -> str:
    """Gives our name of one of mmdet's."""
    for theirs, ours in RENAMES:
        key = key.replace(theirs, ours)
    return key


def from_own_name(key: str) -> str:
    """Gives mmdet's name of one of ours."""
    for theirs, ours in RENAMES:
        key = key.replace(ours, theirs)
    return key


def from_unfold_order(state: State) -> State:
    """Reorders patch merging, in our names, from (channel, neighbour) to (neighbour, channel)."""
    version = layout.find_version(state)
    return {
        key: _group_neighbours(value) if _sees_neighbours(key, value, version) else value
        for key, value in state.items()
    }


def to_unfold_order(state: State) -> State:
    """Reorders patch merging, in our names, from (neighbour, channel) to (channel, neighbour)."""
    version = layout.find_version(state)
    return {
        key: _group_channels(value) if _sees_neighbours(key, value, version) else value
        for key, value in state.items()
    }


def _sees_neighbours(key: str, tensor: Tensor, version: int) -> bool:
    """False also for a tensor of a wrong shape, for whoever knows the right one to report."""
    is_joined = REDUCTION.fullmatch(key) or version == 1 and NORM_BEFORE_REDUCTION.fullmatch(key)
    has_neighbours = tensor.dim() > 0 and tensor.shape[-1] > 0 and tensor.shape[-1] % 4 == 0
    return bool(is_joined) and has_neighbours


def _group_neighbours(tensor: Tensor) -> Tensor:
    parts = tensor.unflatten(-1, (-1, 4))[..., NEIGHBOUR_ORDER]  # (..., C, 4)
    return parts.transpose(-1, -2).flatten(-2)


def _group_channels(tensor: Tensor) -> Tensor:
    parts = tensor.unflatten(-1, (4, -1))[..., NEIGHBOUR_ORDER, :]  # (..., 4, C)
    return parts.transpose(-1, -2).flatten(-2)


RENAMING = Renaming(to_own_name, from_own_name)

MMDET = Layout("mmdet", (1,), find_prefixes, to_own, from_own)
