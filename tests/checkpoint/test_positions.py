"""Units of V2's positions, read back from the tables of torchvision's modules."""

import logging

import pytest
import torch
from torchvision.models.swin_transformer import ShiftedWindowAttentionV2

from swin_mm.checkpoint.layouts import TORCHVISION
from swin_mm.checkpoint.positions import find_other_units, list_assumed_units
from swin_mm.models import SwinTransformer
from swin_mm.models.backbones.swin_v2 import SwinTransformerV2

V2 = dict(embed_dims=8, depths=(2, 1), num_heads=(1, 2), out_indices=(0, 1), drop_path_rate=0.0)


def table_of(window, unit):
    """Microsoft's formula, from the paper's equation 4."""
    sides = [
        torch.arange(1.0 - side, side) / (u - 1) * 8 for side, u in zip(window, unit, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1)[None]
    return grid.sign() * (grid.abs() + 1).log2() / 3


def state_with(*tables):
    return {f"layers.0.blocks.{i}.attn.relative_coords_table": t for i, t in enumerate(tables)}


def test_torchvisions_tables_tell_their_window():
    attention = ShiftedWindowAttentionV2(8, [6, 9], [0, 0], 1)
    table = attention.relative_coords_table
    torch.testing.assert_close(table, table_of((6, 9), (6, 9)))
    backbone = SwinTransformerV2(**V2, window_size=((6, 9), (6, 9)))
    assert find_other_units(state_with(*[table] * 3), backbone) == ()


@pytest.mark.parametrize("unit", [6, 8, 12, 16, 24])
def test_other_units_are_found_stage_by_stage(unit):
    other, same = table_of((24, 24), (unit, unit)), table_of((12, 12), (12, 12))
    backbone = SwinTransformerV2(**V2, window_size=((24, 24), (12, 12)))
    state = state_with(other, other, same)
    assert find_other_units(state, backbone) == (() if unit == 24 else (unit, 12))
    mended = SwinTransformerV2(
        **V2, window_size=((24, 24), (12, 12)), pretrained_window_sizes=(unit, 12)
    )
    assert find_other_units(state, mended) == ()


def test_a_larger_window_asks_for_the_unit_of_the_smaller():
    state = state_with(*[table_of((8, 8), (8, 8))] * 3)
    assert find_other_units(state, SwinTransformerV2(**V2, window_size=16)) == (8, 8)


@pytest.mark.parametrize(
    "tables",
    [[], [torch.zeros(1, 15, 15, 2)] * 3, [torch.zeros(1, 1, 1, 2)] * 3, [torch.zeros(3)] * 3],
    ids=["none", "zeros", "one-token", "flat"],
)
def test_what_does_not_tell_is_no_difference(tables):
    assert find_other_units(state_with(*tables), SwinTransformerV2(**V2, window_size=16)) == ()


def test_v1_has_no_units():
    state = state_with(*[table_of((8, 8), (8, 8))] * 7)
    assert find_other_units(state, SwinTransformer(embed_dims=8, num_heads=(1, 1, 1, 1))) == ()


def test_other_units_are_a_warning_that_names_the_argument(caplog):
    from mmengine.logging import MMLogger

    own = SwinTransformerV2(**V2, window_size=8).state_dict()
    own = {key: value for key, value in own.items() if not key.startswith("norm")}
    state = TORCHVISION.from_own(own)
    for name in ("features.1.0", "features.1.1", "features.3.0"):
        state[f"{name}.attn.relative_coords_table"] = table_of((8, 8), (8, 8))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            SwinTransformerV2(**V2, window_size=12).load_state_dict(state)
            SwinTransformerV2(**V2, window_size=8).load_state_dict(state)
    finally:
        logger.removeHandler(caplog.handler)
    assert len(caplog.records) == 1
    assert "set pretrained_window_sizes=(8, 8)" in caplog.text


@pytest.mark.parametrize("value", [None, torch.zeros(1, 15, 15, 2), torch.zeros(3)])
def test_a_load_says_which_units_it_assumes(value):
    """timm, Hugging Face and files saved here hold no table of positions."""
    backbone = SwinTransformerV2(**V2, window_size=8, pretrained_window_sizes=(6, 0))
    state = backbone.state_dict()
    if value is not None:
        state["layers.0.blocks.0.attn.relative_coords_table"] = value
    backbone.load_state_dict(state)
    assert backbone.load_report.assumed_window_sizes == (6, 8)
    wanted = "training windows are not recorded, assumed pretrained_window_sizes=(6, 8)"
    assert wanted in str(backbone.load_report)


def test_units_that_are_told_are_not_assumed():
    state = state_with(*[table_of((8, 8), (8, 8))] * 3)
    assert list_assumed_units(state, SwinTransformerV2(**V2, window_size=8)) == ()
    assert list_assumed_units({}, SwinTransformer(**V2)) == ()
