"""Microsoft's layout against a list of names written by hand, and its values against timm."""

import pytest
import timm
import torch
from swin_libraries import CASES, draw_weights
from swin_weights import SMALL, microsoft_shapes, microsoft_state, relative_error
from timm.models.swin_transformer import checkpoint_filter_fn

from swin_mm.checkpoint.layouts import LAYOUTS, MICROSOFT, recognise
from swin_mm.models import SwinTransformer

CLASSIFIER = {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_the_backbone_has_microsofts_names_and_shapes():
    state = SwinTransformer(**SMALL).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == microsoft_shapes(None)


def test_every_key_of_a_classifier_is_used_or_surplus():
    source = microsoft_state()
    state, unused, unknown = MICROSOFT.to_own(source)
    assert unknown == []
    assert {key for key in unused if "relative_position_index" not in key} == CLASSIFIER | {
        f"layers.{i}.blocks.1.attn_mask" for i in range(3)
    }
    assert sum("relative_position_index" in key for key in unused) == 7
    assert state.keys() | set(unused) == source.keys()
    assert all(state[key] is source[key] for key in state)


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


@pytest.mark.parametrize("version", [1, 2], ids=["v1", "v2"])
def test_simmims_encoder_is_taken_from_beside_its_decoder(version):
    backbone = draw_weights(CASES[f"small-v{version}"].build())
    encoder = {k: v for k, v in backbone.state_dict().items() if not k.startswith("norm")}
    encoder |= {"mask_token": torch.zeros(1, 1, 8), "norm.weight": torch.ones(64)}
    state = {f"encoder.{key}": value for key, value in encoder.items()}
    state |= {"decoder.0.weight": torch.zeros(3072, 64, 1, 1), "decoder.0.bias": torch.zeros(3072)}
    assert recognise(state) == (MICROSOFT, "encoder.", version, ())
    loaded = CASES[f"small-v{version}"].build()
    loaded.load_state_dict({"model": state})
    assert torch.equal(
        loaded.layers[2].blocks[1].mlp.fc2.weight, encoder["layers.2.blocks.1.mlp.fc2.weight"]
    )
    assert set(loaded.load_report.dropped) == {
        "mask_token",
        "norm.weight",
        "decoder.0.weight",
        "decoder.0.bias",
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_of_mobys_encoders_the_trained_one_is_taken(prefix):
    trained, averaged = microsoft_state(seed=1), microsoft_state(seed=2)
    state = {f"{prefix}encoder.{key}": value for key, value in trained.items()}
    state |= {f"{prefix}encoder_k.{key}": value for key, value in averaged.items()}
    state |= {
        f"{prefix}projector.linear_out.weight": torch.zeros(1),
        f"{prefix}queue1": torch.zeros(1),
    }
    assert recognise(state) == (MICROSOFT, f"{prefix}encoder.", 1, (f"{prefix}encoder_k.",))
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict(state)
    assert torch.equal(backbone.patch_embed.proj.weight, trained["patch_embed.proj.weight"])
    report = backbone.load_report
    assert f"skipped {prefix}encoder_k." in str(report)
    assert not any("encoder_k" in key for key in report.dropped)


def test_the_first_files_of_v2_name_the_network_of_positions_otherwise():
    own = CASES["small-v2"].build().state_dict()
    source = {key.replace("cpb_mlp", "rpe_mlp"): value for key, value in own.items()}
    assert any("rpe_mlp" in key for key in source)
    state, unused, unknown = MICROSOFT.to_own(source)
    assert state.keys() == own.keys()
    assert unused == unknown == []
    both = source | {"layers.0.blocks.0.attn.cpb_mlp.0.bias": torch.zeros(512)}
    assert len(MICROSOFT.to_own(both).unknown) == 1


def test_every_key_of_v2_is_used_or_surplus():
    own = CASES["small-v2"].build().state_dict()
    block = "layers.0.blocks.1"
    buffers = [f"{block}.attn.relative_coords_table", f"{block}.attn_mask"]
    source = own | dict.fromkeys([*buffers, "norm.weight", "head.bias"], torch.zeros(1))
    state, unused, unknown = MICROSOFT.to_own(source)
    assert all(state[key] is own[key] for key in own)
    assert unused == [*buffers, "norm.weight", "head.bias"]
    assert unknown == []


def test_mixed_context_is_kept_in_our_own_files_alone():
    key = "layers.0.blocks.0.attn.context_mix"
    own = SwinTransformer(**SMALL).state_dict() | {key: torch.zeros(1, 8, 16)}
    assert MICROSOFT.list_lost(own) == []
    for layout in set(LAYOUTS) - {MICROSOFT}:
        assert key in layout.list_lost(own), layout.name
