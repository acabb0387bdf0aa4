"""The layout of mmdet and mmseg: other names, and patch merging in the order of `nn.Unfold`.

Source:
    `mmdet/models/backbones/swin.py` and `mmdet/models/layers/transformer/utils.py` of mmdet 3.3.0;
    mmseg 1.2.2 has the same.
"""

import re
from collections.abc import Callable, Iterable
from typing import ClassVar

from torch import Tensor

from swin_mm.checkpoint.layouts.layout import Conversion, Layout, State, find_version

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


class Mmdet(Layout):
    name = "mmdet"
    versions: ClassVar[tuple[int, ...]] = (1,)
    # mmpretrain shares it.
    anchor = r"stages\.\d+\.blocks\.\d+\.attn\.w_msa\.(relative_position_bias_table|logit_scale)"

    def is_own(self, state: Iterable[str], prefix: str) -> bool:
        """In V1, mmpretrain has the same names, and a norm at its last stage alone."""
        inside = [key[len(prefix) :] for key in state if key.startswith(prefix)]
        norms = {int(match[1]) for key in inside if (match := re.match(r"norm(\d+)\.", key))}
        stages = {int(match[1]) for key in inside if (match := re.match(r"stages\.(\d+)\.", key))}
        # Before its second version, mmpretrain's norm had no number.
        is_classifier = norms == {max(stages)} or "norm.weight" in inside
        return find_version(inside) == 1 and not is_classifier

    def to_own(self, state: State) -> Conversion:
        """Renames the parameters and reorders those of patch merging."""
        own, unused, unknown = super().to_own(state)
        return Conversion(_reorder(own, _group_neighbours), unused, unknown)

    def from_own(self, state: State) -> State:
        """Gives a state dict that the library's `SwinTransformer` loads as it is."""
        return super().from_own(_reorder(state, _group_channels))

    def to_own_name(self, key: str) -> str:
        for theirs, ours in RENAMES:
            key = key.replace(theirs, ours)
        return key

    def from_own_name(self, key: str) -> str:
        for theirs, ours in RENAMES:
            key = key.replace(ours, theirs)
        return key


def _reorder(state: State, reorder: Callable[[Tensor], Tensor]) -> State:
    """Reorders patch merging, in our names.

    A tensor of a wrong shape is left as it is, for whoever knows the right one to report.
    """
    version = find_version(state)

    def sees_neighbours(key: str, tensor: Tensor) -> bool:
        is_norm = version == 1 and NORM_BEFORE_REDUCTION.fullmatch(key)
        has_neighbours = tensor.dim() > 0 and tensor.shape[-1] > 0 and tensor.shape[-1] % 4 == 0
        return bool(REDUCTION.fullmatch(key) or is_norm) and has_neighbours

    return {k: reorder(value) if sees_neighbours(k, value) else value for k, value in state.items()}


def _group_neighbours(tensor: Tensor) -> Tensor:
    """From (channel, neighbour) to (neighbour, channel)."""
    parts = tensor.unflatten(-1, (-1, 4))[..., NEIGHBOUR_ORDER]  # (..., C, 4)
    return parts.transpose(-1, -2).flatten(-2)


def _group_channels(tensor: Tensor) -> Tensor:
    """From (neighbour, channel) to (channel, neighbour)."""
    parts = tensor.unflatten(-1, (4, -1))[..., NEIGHBOUR_ORDER, :]  # (..., 4, C)
    return parts.transpose(-1, -2).flatten(-2)


MMDET = Mmdet()
