"""Lets mmdet's text encoder and the fusion of text and image run on transformers 5.

For mmdet 3.3 (GLIP, Grounding DINO and MM Grounding DINO) on transformers 5, which dropped the
tokenizers' `batch_encode_plus`, their `__call__` under another name, and takes an attention mask
`(B, N, N)`, one row of keys per query, only as `(B, 1, N, N)`. GLIP's fusion, and the language
models of mmpretrain, import functions from where transformers 4 had them; BERT's attention calls
its inner layer with other arguments, and models no longer extend masks.
"""

from collections.abc import Iterable
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch

UTILITIES = "transformers.modeling_utils"
MOVED = ("GenerationConfig", "GenerationMixin", "PretrainedConfig")


def _why_not() -> str | None:
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return "transformers, which mmdet's text encoder needs, is not installed"
    if _is_affected(version):
        return None
    return f"transformers {version} has what mmdet's text encoder calls"


def _is_affected(version: str) -> bool:
    return int(version.partition(".")[0]) >= 5


def _patch(module: ModuleType) -> None:
    """Replaces the two names of transformers that the module uses by equivalents of old."""
    # mmdet sets them to None where transformers is missing.
    if module.HFBertModel is None or not _is_affected(metadata.version("transformers")):
        return
    from transformers import BertModel, PreTrainedTokenizerBase

    if not hasattr(PreTrainedTokenizerBase, "batch_encode_plus"):
        tokenizer: Any = PreTrainedTokenizerBase
        tokenizer.batch_encode_plus = tokenizer.__call__

    class MaskPerQueryBert(BertModel):
        """BERT that also takes attention masks `(B, N, N)`."""

        def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            if attention_mask is not None and attention_mask.dim() == 3:
                attention_mask = attention_mask[:, None]
            return super().forward(*args, attention_mask=attention_mask, **kwargs)

    vars(module)["HFBertModel"] = MaskPerQueryBert


def _restore_names(module: ModuleType) -> None:
    """Puts functions back where transformers 4 had them, those that are gone as of old."""
    from transformers import pytorch_utils

    for name in ("apply_chunking_to_forward", "prune_linear_layer"):
        if not hasattr(module, name) and hasattr(pytorch_utils, name):
            setattr(module, name, getattr(pytorch_utils, name))
    if not hasattr(module, "find_pruneable_heads_and_indices"):
        vars(module)["find_pruneable_heads_and_indices"] = _find_pruneable_heads_and_indices
    vars(module).setdefault("__getattr__", _look_up)


def _look_up(name: str) -> Any:
    """Gives what `transformers.modeling_utils` had of the package, imported when asked for."""
    if name in MOVED:
        return getattr(import_module("transformers"), name)
    raise AttributeError(f"module {UTILITIES!r} has no attribute {name!r}")


def _find_pruneable_heads_and_indices(
    heads: Iterable[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], Any]:
    """Heads that are still to be pruned, and the channels `(kept,)` that stay.

    `n_heads` counts those that are left, `heads` are numbered as at first.
    """
    import torch  # late, so that `import swin_mm` stays quick

    heads = set(heads) - already_pruned_heads
    places = {head - sum(pruned < head for pruned in already_pruned_heads) for head in heads}
    kept = [place for place in range(n_heads) if place not in places]
    return heads, torch.arange(n_heads * head_size).view(n_heads, head_size)[kept].flatten()


def _patch_fusion(module: ModuleType) -> None:
    """Gives the layers of GLIP's fusion the two methods that they had from transformers 4."""
    if module.BertConfig is None or not _is_affected(metadata.version("transformers")):
        return
    import torch

    def attend(
        self: Any,
        hidden_states: Any,
        attention_mask: Any = None,
        head_mask: Any = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        outputs = self.self(hidden_states, attention_mask, head_mask, **kwargs)
        return (self.output(outputs[0], hidden_states), *outputs[1:])

    def extend_mask(self: Any, mask: Any, *_: Any) -> Any:
        """From `(B, N)` or `(B, N, N)`, 1 for what is seen, to what is added to the scores."""
        mask = mask[:, None, None] if mask.dim() == 2 else mask[:, None]
        return (1 - mask.to(self.dtype)) * torch.finfo(self.dtype).min

    module.BertAttention.forward = attend
    module.BertEncoderLayer.get_extended_attention_mask = extend_mask


PATCH = Patch(
    "mmdet_bert",
    "transformers 5 dropped what mmdet's text encoder calls",
    {
        "mmdet.models.language_models.bert": _patch,
        UTILITIES: _restore_names,
        "mmdet.models.utils.vlfuse_helper": _patch_fusion,
    },
    why_not=_why_not,
)
