"""Microsoft's layout, which is also our own: classification, pretraining, detection, segmentation.

SimMIM's files have it under `encoder.`, beside a decoder; MoBY's have it twice, under `encoder.`
and, averaged over time, under `encoder_k.`.

Source:
    `models/swin_transformer.py`, `models/swin_transformer_v2.py` and `models/simmim.py` of
    https://github.com/microsoft/Swin-Transformer; `swin_transformer.py` of the repositories
    Swin-Transformer-Object-Detection and Swin-Transformer-Semantic-Segmentation, and
    `models/moby.py` of Transformer-SSL, of https://github.com/SwinTransformer.
"""

import re
from collections.abc import Iterable

from swin_mm.checkpoint.layouts.layout import PARAMETER, UNUSED, Conversion, Layout, State

# What only our own files have: mixed-context attention.
CONTEXT_MIX = re.compile(r"layers\.\d+\.blocks\.\d+\.attn\.context_mix")


class Microsoft(Layout):
    name = "Microsoft"
    # timm shares it, and differs in where patch merging stands.
    anchor = r"layers[._]\d+\.blocks\.\d+\.attn\.(relative_position_bias_table|logit_scale)"

    def is_own(self, state: Iterable[str], prefix: str) -> bool:
        return not merges_at_the_start(state, prefix)

    def to_own(self, state: State) -> Conversion:
        """Takes over the parameters.

        The detection code keeps `absolute_pos_embed` as `(1, C, Ph, Pw)`; ours is `(1, Ph*Pw, C)`,
        as in classification. The first files of V2 say `rpe_mlp` for `cpb_mlp`.
        """
        own, unused, unknown = {}, [], []
        for key, value in state.items():
            name = key.replace(".rpe_mlp.", ".cpb_mlp.")
            if UNUSED.fullmatch(key):
                unused.append(key)
            elif name not in own and (PARAMETER.fullmatch(name) or CONTEXT_MIX.fullmatch(name)):
                own[name] = value
            else:
                unknown.append(key)
        embedding = own.get("absolute_pos_embed")
        if embedding is not None and embedding.dim() == 4:
            own["absolute_pos_embed"] = embedding.flatten(2).transpose(1, 2)
        return Conversion(own, unused, unknown)

    def from_own(self, state: State) -> State:
        """Gives the names and shapes of classification, which are our own."""
        return dict(state)


def merges_at_the_start(state: Iterable[str], prefix: str) -> bool:
    """Whether stages begin with patch merging, so that the first has none, as in timm.

    Without any merging both layouts are the same, and the answer is False.
    """
    pattern = re.compile(rf"{re.escape(prefix)}layers([._])(\d+)\.(downsample\.)?.+")
    matches = [match for key in state if (match := pattern.fullmatch(key))]
    merging = {int(match[2]) for match in matches if match[3]}
    return any(match[1] == "_" for match in matches) or bool(merging) and 0 not in merging


MICROSOFT = Microsoft()
