"""The layout of Hugging Face's transformers: other names; query, key and value apart.

Files have the names of version 4, and version 5 writes them so too; its modules in memory have
others, and both are read. Files are bare (`SwinBackbone`, and what Mask2Former and UperNet hold) or
have the model's name before all but the norms of outputs (`SwinModel` and classifiers).

Source:
    `models/swin`, `models/swinv2`, `models/maskformer/modeling_maskformer_swin.py` and
    `conversion_mapping.py` of https://github.com/huggingface/transformers, version 5.23.
"""

import re

import torch

from swin_mm.checkpoint.layouts.layout import PARAMETER_BUT_NORM3, Conversion, Layout, State

MODEL = r"(?:swin\.|swinv2\.|model\.)?"

# Names of version 5 and of MaskFormer's own Swin, and the ones in files.
FILE_NAMES = (
    (re.compile(rf"^{MODEL}(?=embeddings\.|encoder\.|layernorm\.)"), ""),
    (re.compile(r"\.attention\.q_proj\."), ".attention.self.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attention.self.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attention.self.value."),
    (re.compile(r"\.attention\.relative_position_bias\."), ".attention.self."),
    (re.compile(r"\.attention\.o_proj\."), ".attention.output.dense."),
    (re.compile(r"\.mlp\.fc1\."), ".intermediate.dense."),
    (re.compile(r"\.mlp\.fc2\."), ".output.dense."),
    (re.compile(r"^hidden_states_norms\.(\d+)\."), lambda m: f"{NORM}{int(m[1]) + 1}."),
)

# Parts of names: (theirs, ours); a part within another comes after it.
RENAMES = (
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("embeddings.norm.", "patch_embed.norm."),
    ("embeddings.position_embeddings", "absolute_pos_embed"),
    ("encoder.layers.", "layers."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.self.continuous_position_bias_mlp.", ".attn.cpb_mlp."),
    (".attention.self.", ".attn."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)

NORM = "hidden_states_norms.stage"
THEIR_NORM = re.compile(r"hidden_states_norms\.stage(\d+)\.(.+)")
OUR_NORM = re.compile(r"norm(\d+)\.(.+)")

PART = re.compile(r"(.+\.attention\.self)\.(query|key|value)\.(weight|bias)")
# Of the joined names, which nothing in a file has.
QKV = re.compile(r"(.+\.attention\.self)\.qkv\.(weight|bias)")
SPLIT_BIAS = {"query": "q_bias", "value": "v_bias"}
JOINED = re.compile(r".+\.attention\.self\.(qkv\..+|[qv]_bias)")


class HuggingFace(Layout):
    name = "Hugging Face"
    anchor = (
        MODEL + r"encoder\.layers\.\d+\.blocks\.\d+\.attention\."
        r"(?:self\.|relative_position_bias\.)?(?:relative_position_bias_table|logit_scale)"
    )
    unused = re.compile(
        r"layernorm\.\w+|classifier\..+|decoder\..+|embeddings\.mask_token"
        r"|.+\.(relative_position_index|relative_coords_table)"
    )
    parameter = PARAMETER_BUT_NORM3

    def to_own(self, state: State) -> Conversion:
        """Renames the parameters and joins query, key and value."""
        sources: dict[str, str] = {}
        unknown = []
        for key in state:
            name = _to_file_name(key)
            if name in sources or JOINED.fullmatch(name):
                unknown.append(key)
            else:
                sources[name] = key
        joined, apart = _join({name: state[key] for name, key in sources.items()})
        own, unused, others = super().to_own(joined)
        unknown += [sources[name] for name in [*apart, *others]]
        return Conversion(own, [sources[name] for name in unused], unknown)

    def from_own(self, state: State) -> State:
        """Gives the names of `SwinBackbone`'s and `Swinv2Backbone`'s files."""
        split = {}
        for key, value in super().from_own(state).items():
            if match := QKV.fullmatch(key):
                for part, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    split[f"{match[1]}.{part}.{match[2]}"] = chunk
            else:
                key = key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias")
                split[key] = value
        return split

    def to_own_name(self, key: str) -> str:
        if match := THEIR_NORM.fullmatch(key):
            return f"norm{int(match[1]) - 1}.{match[2]}"
        for theirs, ours in RENAMES:
            key = key.replace(theirs, ours)
        return key

    def from_own_name(self, key: str) -> str:
        if match := OUR_NORM.fullmatch(key):
            return f"{NORM}{int(match[1]) + 1}.{match[2]}"
        for theirs, ours in RENAMES:
            key = key.replace(ours, theirs)
        return key


def _join(state: State) -> tuple[State, list[str]]:
    """Joins what is apart in an attention, under names of files.

    V1 has biases of query, key and value, joined to one; V2 has none of keys.

    Returns:
        The state dict, and keys of incomplete or unequal parts, which are not in it.
    """
    joined: State = {}
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for key, value in state.items():
        if match := PART.fullmatch(key):
            groups.setdefault((match[1], match[3]), {})[match[2]] = key
        else:
            joined[key] = value
    apart: list[str] = []
    for (attention, kind), keys in groups.items():
        parts = {name: state[key] for name, key in keys.items()}
        if len({part.shape for part in parts.values()}) > 1 or not next(iter(parts.values())).dim():
            apart += keys.values()
        elif parts.keys() == {"query", "key", "value"}:
            joined[f"{attention}.qkv.{kind}"] = torch.cat(
                [parts["query"], parts["key"], parts["value"]]
            )
        elif kind == "bias" and f"{attention}.logit_scale" in state and "key" not in parts:
            joined |= {f"{attention}.{SPLIT_BIAS[name]}": part for name, part in parts.items()}
        else:
            apart += keys.values()
    return joined, apart


def _to_file_name(key: str) -> str:
    for pattern, replacement in FILE_NAMES:
        key = pattern.sub(replacement, key)
    return key


HUGGINGFACE = HuggingFace()
