"""torchvision's layout: everything is numbered within `features`, and V2 has one bias for q, k, v.

Source:
    `torchvision/models/swin_transformer.py` of https://github.com/pytorch/vision, version 0.29.
"""

import re

import torch

from swin_mm.checkpoint.layouts.layout import (
    PARAMETER_BUT_NORM3,
    Conversion,
    Layout,
    State,
    find_version,
)

# Parts of names: (theirs, ours).
PATCH_RENAMES = (("features.0.0.", "patch_embed.proj."), ("features.0.2.", "patch_embed.norm."))
MLP_RENAMES = ((".mlp.0.", ".mlp.fc1."), (".mlp.3.", ".mlp.fc2."))

# Blocks of stage i are at 2i + 1, the merging after them at 2i + 2.
NUMBERED = re.compile(r"features\.(\d+)\.(.+)")
BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(.+)")
MERGING = re.compile(r"layers\.(\d+)\.downsample\.(.+)")

QKV_BIAS = re.compile(r"(.+\.attn)\.qkv\.bias")
Q_BIAS = re.compile(r"(.+\.attn)\.q_bias")
SPLIT_BIAS = re.compile(r".+\.attn\.[qv]_bias")


class Torchvision(Layout):
    name = "torchvision"
    anchor = r"features\.\d+\.\d+\.attn\.(relative_position_bias_table|logit_scale)"
    parameter = PARAMETER_BUT_NORM3

    def to_own(self, state: State) -> Conversion:
        """Renames the parameters and, in V2, splits the bias of q, k and v.

        torchvision's V2 sets the bias of keys to zero whenever it is used, whatever is stored. Ours
        has none, and `from_own` writes the zeros.
        """
        if find_version(state) == 1:
            return super().to_own(state)
        split, foreign = {}, []
        for key, value in state.items():
            match = QKV_BIAS.fullmatch(key)
            if match and value.dim() == 1 and len(value) % 3 == 0:
                split[f"{match[1]}.q_bias"], _, split[f"{match[1]}.v_bias"] = value.chunk(3)
            elif match or SPLIT_BIAS.fullmatch(key):
                foreign.append(key)
            else:
                split[key] = value
        own, unused, unknown = super().to_own(split)
        return Conversion(own, unused, unknown + foreign)

    def from_own(self, state: State) -> State:
        """Gives the features of torchvision's models."""
        renamed = super().from_own(state)
        joined = {}
        for key, value in renamed.items():
            if match := Q_BIAS.fullmatch(key):
                v_bias = renamed[f"{match[1]}.v_bias"]
                joined[f"{match[1]}.qkv.bias"] = torch.cat([value, torch.zeros_like(value), v_bias])
            elif not SPLIT_BIAS.fullmatch(key):
                joined[key] = value
        return joined

    def to_own_name(self, key: str) -> str:
        for theirs, ours in PATCH_RENAMES:
            if key.startswith(theirs):
                return key.replace(theirs, ours)
        match = NUMBERED.fullmatch(key)
        if match is None:
            return ""
        position, rest = int(match[1]), match[2]
        if position % 2 == 0:
            return f"layers.{position // 2 - 1}.downsample.{rest}"
        for theirs, ours in MLP_RENAMES:
            rest = rest.replace(theirs, ours)
        return f"layers.{position // 2}.blocks.{rest}"

    def from_own_name(self, key: str) -> str:
        for theirs, ours in PATCH_RENAMES:
            if key.startswith(ours):
                return key.replace(ours, theirs)
        if match := MERGING.fullmatch(key):
            return f"features.{2 * int(match[1]) + 2}.{match[2]}"
        match = BLOCK.fullmatch(key)
        if match is None:
            return ""  # the norms of outputs have no place
        rest = match[2]
        for theirs, ours in MLP_RENAMES:
            rest = rest.replace(ours, theirs)
        return f"features.{2 * int(match[1]) + 1}.{rest}"


TORCHVISION = Torchvision()
