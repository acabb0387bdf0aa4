"""Lets mmdet's text encoder run on transformers 5.

For mmdet 3.3 (GLIP, Grounding DINO and MM Grounding DINO) on transformers 5, which dropped the
tokenizers' `batch_encode_plus`, their `__call__` under another name, and takes an attention mask
`(B, N, N)`, one row of keys per query, only as `(B, 1, N, N)`.
"""

from importlib import metadata
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import when_imported

TARGET = "mmdet.models.language_models.bert"


def install() -> None:
    """Repairs the encoder when mmdet's models are imported."""
    when_imported(TARGET, _repair)


def explain() -> tuple[bool, str]:
    """Says whether the encoder is repaired, and why."""
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return False, "transformers, which mmdet's text encoder needs, is not installed"
    if _is_affected(version):
        return True, f"transformers {version} dropped what mmdet's text encoder calls"
    return False, f"transformers {version} has what mmdet's text encoder calls"


def _is_affected(version: str) -> bool:
    return int(version.partition(".")[0]) >= 5


def _repair(module: ModuleType) -> None:
    """Replaces the two names of transformers that the module uses by equivalents of old."""
    # mmdet sets them to None where transformers is missing.
    if module.HFBertModel is None or not _is_affected(metadata.version("transformers")):
        return
    from transformers import BertModel, PreTrainedTokenizerBase

    if not hasattr(PreTrainedTokenizerBase, "batch_encode_plus"):
        PreTrainedTokenizerBase.batch_encode_plus = PreTrainedTokenizerBase.__call__

    class MaskPerQueryBert(BertModel):
        """BERT that also takes attention masks `(B, N, N)`."""

        def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
            if attention_mask is not None and attention_mask.dim() == 3:
                attention_mask = attention_mask[:, None]
            return super().forward(*args, attention_mask=attention_mask, **kwargs)

    module.HFBertModel = MaskPerQueryBert
