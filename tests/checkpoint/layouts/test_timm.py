"""timm's layout against its own classes, bare and with `features_only`."""

import pytest
import timm
import torch
from swin_libraries import CASES, build_timm
from swin_weights import relative_error
from timm.models.swin_transformer_v2 import checkpoint_filter_fn

from swin_mm.checkpoint.layouts import MICROSOFT, TIMM, recognise

CLASSIFIER = ["norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"]


@pytest.fixture(params=["small-v1", "small-v2"])
def case(request):
    return CASES[request.param]


def test_merging_moves_by_a_stage_and_keeps_its_order():
    source = build_timm(CASES["small-v1"]).state
    own = TIMM.to_own(source).state
    for i in range(3):
        name = "downsample.reduction.weight"
        assert own[f"layers.{i}.{name}"] is source[f"layers.{i + 1}.{name}"]


def test_stages_of_features_only_are_the_same():
    source = build_timm(CASES["small-v1"]).state
    flat = {key.replace("layers.", "layers_"): value for key, value in source.items()}
    assert recognise(flat) == (TIMM, "", 1, ())
    assert TIMM.to_own(flat).state.keys() == TIMM.to_own(source).state.keys()
    wanted = timm.create_model("swin_tiny_patch4_window7_224", features_only=True).state_dict()
    assert TIMM.to_own(wanted).unknown == []
    assert len(TIMM.to_own(wanted).state) == len(wanted)


def test_a_stage_under_two_names_is_unknown():
    source = build_timm(CASES["small-v1"]).state
    source["layers_0.blocks.0.norm1.weight"] = torch.zeros(8)
    assert len(TIMM.to_own(source).unknown) == 1


def test_a_swin_without_merging_is_microsofts():
    state = {
        key: value for key, value in build_timm(CASES["small-v1"]).state.items() if "0." in key
    }
    assert recognise(state) == (MICROSOFT, "", 1, ())


def test_timm_loads_what_is_written(case):
    reference = build_timm(case)
    backbone = case.build()
    missing, unexpected = reference.module.load_state_dict(
        TIMM.from_own(backbone.state_dict()), strict=False
    )
    assert (missing, unexpected) == (CLASSIFIER, [])


def test_timms_reader_of_microsofts_v2_agrees():
    """timm reads Microsoft's files by a converter of its own."""
    case = CASES["small-v2"]
    reference = build_timm(case)
    state = TIMM.to_own(reference.state).state
    buffers = {
        "layers.0.blocks.0.attn.relative_coords_table": torch.zeros(1, 15, 15, 2),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(64, 64, dtype=torch.long),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 64, 64),
    }
    file = {"model": MICROSOFT.from_own(state) | buffers}
    read = checkpoint_filter_fn(dict(file), reference.module)
    assert all(torch.equal(read[key], reference.state[key]) for key in read)
    assert read.keys() == reference.state.keys() - set(CLASSIFIER)
    backbone = case.build(out_indices=(3,))
    backbone.load_state_dict(file)
    assert backbone.load_report.layout == "Microsoft"
    image = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = reference.compute_maps(image)[3]
        wanted = torch.nn.functional.layer_norm(wanted.permute(0, 2, 3, 1), (64,))
        (found,) = backbone(image)
    assert relative_error(found, wanted.permute(0, 3, 1, 2)) < 1e-5
