"""Microsoft's layout against a list of names written by hand, and its values against timm."""

import pytest
import timm
import torch
from swin_weights import SMALL, microsoft_shapes, microsoft_state, relative_error
from timm.models.swin_transformer import checkpoint_filter_fn

from swin_mm.checkpoint.layouts import MICROSOFT
from swin_mm.models import SwinTransformer

CLASSIFIER = {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_the_backbone_has_microsofts_names_and_shapes():
    state = SwinTransformer(**SMALL).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == microsoft_shapes(None)


def test_every_key_of_a_classifier_is_used_or_surplus():
    source = microsoft_state()
    state, surplus, unknown = MICROSOFT.to_own(source)
    assert unknown == []
    assert {key for key in surplus if "relative_position_index" not in key} == CLASSIFIER | {
        f"layers.{i}.blocks.1.attn_mask" for i in range(3)
    }
    assert sum("relative_position_index" in key for key in surplus) == 7
    assert state.keys() | set(surplus) == source.keys()
    assert all(state[key] is source[key] for key in state)


@pytest.mark.parametrize("num_classes", [5, None], ids=["classification", "detection"])
def test_there_and_back_is_the_identity(num_classes):
    source = microsoft_state(num_classes)
    own = MICROSOFT.to_own(source).state
    assert own.keys() == microsoft_shapes(num_classes).keys() - CLASSIFIER
    back = MICROSOFT.from_own(own)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], source[key]) for key in back)
    again = MICROSOFT.to_own(back).state
    assert all(torch.equal(again[key], own[key]) for key in own)


def test_position_embedding_of_the_detection_code_is_flattened():
    source = microsoft_state(None)
    source["absolute_pos_embed"] = torch.arange(8 * 2 * 3.0).reshape(1, 8, 2, 3)
    embedding = MICROSOFT.to_own(source).state["absolute_pos_embed"]
    assert embedding.shape == (1, 6, 8)
    # Patch (1, 0) of channel 2.
    assert embedding[0, 1 * 3 + 0, 2] == source["absolute_pos_embed"][0, 2, 1, 0]


@pytest.mark.parametrize(
    "key",
    [
        "stages.0.blocks.0.norm1.weight",
        "layers.0.blocks.0.attn.w_msa.qkv.weight",
        "layers.0.blocks.0.attn.logit_scale.weight",
        "patch_embed.projection.weight",
        "norm0",
    ],
)
def test_names_of_other_layouts_are_unknown(key):
    assert MICROSOFT.to_own({key: torch.zeros(1)}).unknown == [key]


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone.", "encoder."])
def test_the_prefix_is_found(prefix):
    assert MICROSOFT.find_prefixes({prefix + key: 0 for key in microsoft_state()}) == {prefix}


def test_outputs_equal_timms_with_the_same_file():
    """timm reads Microsoft's files by a converter of its own."""
    source = microsoft_state()
    source["norm.weight"], source["norm.bias"] = torch.ones(64), torch.zeros(64)
    reference = timm.models.SwinTransformer(
        img_size=224,
        embed_dim=SMALL["embed_dims"],
        depths=SMALL["depths"],
        num_heads=SMALL["num_heads"],
        window_size=7,
        num_classes=5,
    ).eval()
    reference.load_state_dict(checkpoint_filter_fn({"model": source}, reference))
    backbone = SwinTransformer(**SMALL, out_indices=(3,)).eval()
    backbone.load_state_dict({"model": source})
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = reference.forward_features(image).permute(0, 3, 1, 2)
        (found,) = backbone(image)
    assert relative_error(found, wanted) < 1e-5
