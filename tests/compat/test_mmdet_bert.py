"""mmdet's text encoder on the transformers at hand, with a small BERT of random weights."""

import inspect
import subprocess
import sys
from importlib import metadata
from types import ModuleType

import pytest
import torch
from mmdet.models.language_models import bert as target

from swin_mm.compat import mmdet_bert

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "cat", "dog"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The encoder as Grounding DINO has it: each phrase sees itself only."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return target.BertModel(
        str(folder),
        pad_to_max=False,
        use_sub_sentence_represent=True,
        special_tokens_list=["[CLS]", "[SEP]", "."],
    ).eval()


@pytest.mark.skipif(
    not mmdet_bert._is_affected(metadata.version("transformers")), reason="needs transformers 5"
)
def test_upstream_still_needs_the_patch():
    """Fails when the repair is no longer needed."""
    assert "tokenizer.batch_encode_plus(" in inspect.getsource(target)
    code = (
        "from transformers import PreTrainedTokenizerBase\n"
        "assert not hasattr(PreTrainedTokenizerBase, 'batch_encode_plus')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
    assert mmdet_bert.PATCH.explain()[0]


def test_phrases_are_encoded(encoder):
    """ "a cat" and "dog" in one caption give what BERT gives for each alone, at its positions."""
    with torch.no_grad():
        both = encoder(["a cat . dog ."])
        tokens = encoder.tokenizer(["a cat . dog ."], return_tensors="pt")["input_ids"]
        for phrase in (slice(1, 4), slice(4, 6)):  # between [CLS] and [SEP]
            alone = encoder.language_backbone.body.model(
                input_ids=tokens[:, phrase], output_hidden_states=True
            )
            torch.testing.assert_close(both["embedded"][:, phrase], alone.hidden_states[-1])
    assert both["position_ids"].tolist() == [[0, 0, 1, 2, 0, 1, 0]]


def test_padding_is_not_seen(encoder):
    with torch.no_grad():
        padded = encoder(["dog .", "a cat . dog ."])
        alone = encoder(["dog ."])
    torch.testing.assert_close(padded["embedded"][:1, :4], alone["embedded"])
    assert padded["text_token_mask"].sum(1).tolist() == [4, 7]


@pytest.mark.parametrize(
    ("version", "affected"), [("4.45.2", False), ("5.0.0", True), ("10.1", True)]
)
def test_only_transformers_5_is_affected(monkeypatch, version, affected):
    monkeypatch.setattr(metadata, "version", lambda name: version)
    active, reason = mmdet_bert.PATCH.explain()
    assert active is affected and (affected or version in reason)
    module = ModuleType("module")
    module.HFBertModel = transformers.BertModel
    mmdet_bert._patch(module)
    assert (module.HFBertModel is not transformers.BertModel) is affected


def test_without_transformers(monkeypatch):
    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert mmdet_bert.PATCH.explain()[0] is False
    module = ModuleType("module")
    module.HFBertModel = None
    mmdet_bert._patch(module)
    assert module.HFBertModel is None


@pytest.mark.parametrize("mask", [[[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], [[1] * 6] * 2])
def test_the_layer_of_glips_fusion_is_berts(mask):
    from mmdet.models.utils.vlfuse_helper import BertEncoderLayer

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_attention_heads=2, intermediate_size=24)
    config = transformers.BertConfig(**sizes, attn_implementation="eager")
    layer = BertEncoderLayer(config).eval()
    stock = transformers.models.bert.modeling_bert.BertLayer(config).eval()
    stock.load_state_dict(layer.state_dict())
    hidden, mask = torch.randn(2, 6, 16), torch.tensor(mask)
    added = (1 - mask[:, None, None].float()) * torch.finfo(torch.float32).min
    with torch.no_grad():
        out = layer(dict(visual=None, lang=dict(hidden=hidden, masks=mask)))["lang"]["hidden"]
        wanted = stock(hidden, attention_mask=added)
    torch.testing.assert_close(out, wanted[0] if isinstance(wanted, tuple) else wanted)


def test_functions_are_where_language_models_import_them_from():
    """As mmpretrain's BLIP and OFA do it."""
    from transformers.modeling_utils import (
        GenerationConfig,
        GenerationMixin,
        PretrainedConfig,
        apply_chunking_to_forward,
        find_pruneable_heads_and_indices,
        prune_linear_layer,
    )

    assert GenerationMixin is transformers.GenerationMixin
    assert GenerationConfig is transformers.GenerationConfig
    assert PretrainedConfig is transformers.PretrainedConfig
    assert not hasattr(transformers.modeling_utils, "no_such_name")
    assert callable(prune_linear_layer) and callable(apply_chunking_to_forward)
    heads, channels = find_pruneable_heads_and_indices([0, 2, 3], 3, 2, {0})
    assert heads == {2, 3}
    assert channels.tolist() == [0, 1]  # head 1 is the first of the three that are left
