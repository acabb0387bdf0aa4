"""What may differ between a checkpoint and a backbone, and what may not."""

from types import SimpleNamespace

import pytest
import torch
from swin_weights import SMALL, microsoft_state, randomise

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.fit import fit
from swin_mm.checkpoint.layouts import MICROSOFT
from swin_mm.checkpoint.resize import resize_bias_table, resize_patches
from swin_mm.models import SwinTransformer

TABLE = "layers.0.blocks.1.attn.relative_position_bias_table"


def fit_to(source, backbone):
    """The state and what the report says of it."""
    state, report = fit(MICROSOFT.to_own(source), backbone)
    return SimpleNamespace(state=state, **vars(report))


def fit_small(source, **arguments):
    backbone = SwinTransformer(**(SMALL | arguments))
    return fit_to(source, backbone), backbone


def test_own_weights_pass_untouched():
    source = microsoft_state(None)
    fitted, backbone = fit_small(source)
    assert fitted.state.keys() == backbone.state_dict().keys()
    assert all(fitted.state[key] is source[key] for key in fitted.state)
    assert fitted.loaded == len(fitted.state)
    assert fitted.initial == fitted.resized == ()


def test_a_classifier_keeps_the_output_norms_of_the_backbone():
    fitted, backbone = fit_small(microsoft_state())
    assert fitted.initial == ("norm0", "norm1", "norm2", "norm3")
    assert fitted.loaded == len(backbone.state_dict()) - 8
    assert fitted.state["norm2.weight"] is backbone.norm2.weight
    assert {"head.weight", "norm.bias"} <= set(fitted.dropped)


def test_a_detector_that_lacks_some_output_norms_is_not_completed():
    source = microsoft_state(None)
    del source["norm0.weight"], source["norm0.bias"]
    fitted, _ = fit_small(source)
    assert fitted.initial == ("norm0",)
    assert "norm0.weight" not in fitted.state


def test_stages_and_norms_that_are_not_built_are_dropped():
    source = microsoft_state(None)
    fitted, backbone = fit_small(source, out_indices=(1,))
    assert fitted.state.keys() == backbone.state_dict().keys()
    dropped = {key for key in fitted.dropped if not key.endswith(("_index", "attn_mask"))}
    assert dropped == {
        key
        for key in source.keys() - fitted.state.keys()
        if not key.endswith(("_index", "attn_mask"))
    }
    assert {"norm0.weight", "layers.1.downsample.norm.bias", "layers.2.blocks.0.norm1.weight"} <= (
        dropped
    )


def test_merging_after_the_last_stage_of_the_source_is_unexpected():
    source = microsoft_state(None)
    source["layers.3.downsample.norm.weight"] = torch.zeros(256)
    with pytest.raises(CheckpointError, match=r"1 unexpected \(layers\.3\.downsample\.norm"):
        fit_small(source)


@pytest.mark.parametrize("window", [(12, 12), (4, 14)], ids=str)
def test_bias_tables_are_resized_to_the_window(window):
    source = microsoft_state(None)
    fitted, backbone = fit_small(source, window_size=window)
    assert len(fitted.resized) == 7
    assert torch.equal(fitted.state[TABLE], resize_bias_table(source[TABLE], window))
    backbone.load_state_dict(fitted.state)


def test_position_embedding_is_resized_to_the_image():
    source = microsoft_state(None)
    source["absolute_pos_embed"] = torch.randn(1, 16 * 16, 8)
    fitted, _ = fit_small(source, use_abs_pos_embed=True, pretrain_img_size=(32, 48))
    assert fitted.resized == ("absolute_pos_embed",)
    assert fitted.state["absolute_pos_embed"].shape == (1, 8 * 12, 8)


@pytest.mark.parametrize(
    "arguments",
    [dict(in_channels=1), dict(in_channels=12), dict(patch_size=8, strides=(8, 2, 2, 2))],
    ids=str,
)
def test_patches_are_fitted(arguments):
    source = microsoft_state(None)
    fitted, backbone = fit_small(source, **arguments)
    assert fitted.resized == ("patch_embed.proj.weight",)
    shape = backbone.patch_embed.proj.weight.shape
    wanted = resize_patches(source["patch_embed.proj.weight"], shape[1], shape[2:])
    assert torch.equal(fitted.state["patch_embed.proj.weight"], wanted)
    assert fitted.loaded == len(fitted.state)


def test_channels_that_are_no_colours_are_refused_by_name():
    source = microsoft_state(None) | {"patch_embed.proj.weight": torch.zeros(8, 6, 4, 4)}
    with pytest.raises(CheckpointError, match=r"6 input channels.*in_channels is 6 in the check"):
        fit_small(source)


def test_a_classifier_with_the_norm_of_its_last_stage_is_completed():
    source = microsoft_state(None)
    for i in range(3):
        del source[f"norm{i}.weight"], source[f"norm{i}.bias"]
    fitted, backbone = fit_small(source)
    assert fitted.initial == ("norm0", "norm1", "norm2")
    assert fitted.state["norm0.weight"] is backbone.norm0.weight
    assert fitted.state["norm3.weight"] is source["norm3.weight"]


@pytest.mark.parametrize("ours", [1, 2])
def test_another_version_is_refused_by_name(ours):
    from swin_mm.models.backbones.swin_v2 import SwinTransformerV2

    v1, v2 = SwinTransformer(**SMALL), SwinTransformerV2(**SMALL)
    backbone, other = (v1, v2) if ours == 1 else (v2, v1)
    name = "SwinTransformerV2" if ours == 1 else "SwinTransformer"
    wanted = rf"the model is a Swin V{ours}.*type='swin_mm\.{name}'"
    with pytest.raises(CheckpointError, match=wanted):
        fit(MICROSOFT.to_own(other.state_dict()), backbone)


def mixed():
    """A backbone with mixed context that is not at the identity."""
    return randomise(SwinTransformer(**SMALL, context_scales=("window", "global")))


def test_without_mixed_context_the_backbones_becomes_the_identity():
    backbone = mixed()
    fitted = fit_to(microsoft_state(None), backbone)
    assert fitted.plain_blocks == 7
    mixes = {key: value for key, value in fitted.state.items() if "context_mix" in key}
    assert len(mixes) == 7
    assert not any(value.any() for value in mixes.values())
    assert fitted.loaded == len(fitted.state) - 7
    backbone.load_state_dict(microsoft_state(None), strict=True)
    assert not backbone.layers[0].blocks[0].attn.context_mix.any()
    assert "left the mixed context of 7 blocks at the identity" in str(backbone.load_report)


def test_mixed_context_is_loaded_and_not_dropped():
    source = mixed().state_dict()
    fitted = fit_to(source, mixed())
    assert fitted.plain_blocks == 0
    assert all(fitted.state[key] is source[key] for key in source)
    with pytest.raises(
        CheckpointError, match=r"7 unexpected.*2 context_scales in the check.* 0 in"
    ):
        fit(MICROSOFT.to_own(source), SwinTransformer(**SMALL))
    del source["layers.1.blocks.0.attn.context_mix"]
    with pytest.raises(
        CheckpointError, match=r"1 missing \(layers\.1\.blocks\.0\.attn\.context_mix"
    ):
        fit(MICROSOFT.to_own(source), mixed())


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({TABLE: torch.zeros(25, 1)}, f"{TABLE}: 25 rows, others of its stage have 169"),
        ({TABLE: torch.zeros(169, 3)}, r"\(169, 3\) in the checkpoint, \(169, 1\) in the model"),
        ({TABLE: torch.zeros(169)}, r"\(169,\) in the checkpoint"),
        ({"norm1.bias": torch.zeros(17)}, r"norm1\.bias: \(17,\) in the checkpoint, \(16,\)"),
        ({"layers.0.extra": torch.zeros(1)}, r"1 unexpected \(layers\.0\.extra\)"),
        ({"absolute_pos_embed": torch.zeros(1, 4, 8)}, "use_abs_pos_embed is True in the check"),
    ],
    ids=["short-table", "heads", "flat-table", "norm", "extra", "position-embedding"],
)
def test_a_change_is_refused_by_name(change, wanted):
    with pytest.raises(CheckpointError, match=wanted):
        fit_small(microsoft_state(None) | change)


def test_tables_of_unknown_window_are_refused_by_name():
    source = microsoft_state(None)
    source |= {key: torch.zeros(170, source[key].shape[1]) for key in source if "table" in key}
    with pytest.raises(CheckpointError, match=r"7 of another shape \(layers\.0\.blocks\.0.*170"):
        fit_small(source)


def test_position_embedding_of_unknown_shape_is_refused_by_name():
    source = microsoft_state(None)
    source["absolute_pos_embed"] = torch.zeros(1, 15, 8)
    with pytest.raises(CheckpointError, match=r"absolute_pos_embed: .*15 patches"):
        fit_small(source, use_abs_pos_embed=True)


def test_another_width_and_depth_are_named_with_few_examples():
    backbone = SwinTransformer(**(SMALL | dict(embed_dims=16, depths=(2, 2, 1, 1))))
    with pytest.raises(CheckpointError) as raised:
        fit(MICROSOFT.to_own(microsoft_state(None)), backbone)
    message = str(raised.value)
    assert "embed_dims is 8 in the checkpoint and 16 in the model" in message
    assert "depths is (2, 2, 2, 1) in the checkpoint and (2, 2, 1, 1) in the model" in message
    assert "13 unexpected (layers.2.blocks.1.norm1.weight, " in message
    assert len(message) < 1000
    assert "\n" not in message


def test_a_half_norm_is_missing_a_part():
    source = microsoft_state(None)
    del source["norm0.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing \(norm0\.bias\); both have the same arg"):
        fit_small(source)
