"""Arguments read back from weights."""

import pytest
import torch
from swin_weights import SMALL, microsoft_state

from swin_mm.checkpoint.layouts import MICROSOFT
from swin_mm.checkpoint.variant import explain_difference, read_variant, read_window
from swin_mm.models import SwinTransformer, SwinTransformerV2


def variant_of(**arguments):
    return read_variant(SwinTransformer(**(SMALL | arguments)).state_dict())


def test_arguments_of_the_small_backbone():
    assert variant_of() == {
        "version": 1,
        "embed_dims": 8,
        "in_channels": 3,
        "patch_size": (4, 4),
        "depths": (2, 2, 2, 1),
        "num_heads": (1, 2, 2, 4),
        "mlp_ratio": 4,
        "qkv_bias": True,
        "patch_norm": True,
        "use_abs_pos_embed": False,
        "window_size": (7, 7),
        "context_scales": 0,
    }


def test_arguments_of_a_v2():
    state = SwinTransformerV2(
        **SMALL | dict(window_size=8), context_scales=("global",)
    ).state_dict()
    variant = read_variant(state)
    assert variant["version"] == 2
    assert variant["num_heads"] == (1, 2, 2, 4)
    assert variant["qkv_bias"] is True
    assert variant["context_scales"] == 1
    assert "window_size" not in variant  # no parameter depends on it
    table = {"layers.0.blocks.0.attn.relative_coords_table": torch.zeros(1, 15, 31, 2)}
    assert read_variant(state | table)["window_size"] == (8, 16)
    del state["layers.0.blocks.0.attn.q_bias"]
    assert read_variant(state)["qkv_bias"] is True
    state = SwinTransformerV2(**SMALL, qkv_bias=False).state_dict()
    assert read_variant(state)["qkv_bias"] is False


@pytest.mark.parametrize(
    ("rows", "window"), [(169, (7, 7)), (529, (12, 12)), (170, None), (196, None)]
)
def test_a_window_is_read_off_a_square_table(rows, window):
    assert read_window({"a.relative_position_bias_table": torch.zeros(rows, 3)}) == window


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embed_dims", 16),
        ("in_channels", 4),
        ("patch_size", (2, 4)),
        ("depths", (1, 2, 3, 1)),
        ("num_heads", (2, 2, 4, 4)),
        ("mlp_ratio", 2.5),
        ("qkv_bias", False),
        ("patch_norm", False),
        ("use_abs_pos_embed", True),
    ],
)
def test_each_argument_is_read_and_named(name, value):
    strides = (value, 2, 2, 2) if name == "patch_size" else (4, 2, 2, 2)
    theirs = SwinTransformer(**(SMALL | {name: value, "strides": strides})).state_dict()
    ours = SwinTransformer(**SMALL).state_dict()
    assert read_variant(theirs)[name] == value
    wanted = f"{name} is {value} in the checkpoint and {variant_of()[name]} in the model"
    assert explain_difference(theirs, ours) == wanted


def test_stages_that_the_model_lacks_are_no_difference():
    theirs = MICROSOFT.to_own(microsoft_state()).state
    ours = SwinTransformer(**SMALL, out_indices=(1,)).state_dict()
    assert "same arguments" in explain_difference(theirs, ours)


@pytest.mark.parametrize(
    "state",
    [{}, {"patch_embed.proj.weight": torch.zeros(3)}, {"layers.0.blocks.0.x": torch.zeros(())}],
    ids=["empty", "flat-patch", "no-table"],
)
def test_a_damaged_state_has_fewer_arguments(state):
    assert {"embed_dims", "num_heads", "mlp_ratio"} - read_variant(state).keys()


def test_heads_are_read_off_any_table_of_a_stage():
    state = SwinTransformer(**SMALL).state_dict()
    del state["layers.1.blocks.0.attn.relative_position_bias_table"]
    assert read_variant(state)["num_heads"] == (1, 2, 2, 4)
    del state["layers.3.blocks.0.attn.relative_position_bias_table"]
    assert "num_heads" not in read_variant(state)
