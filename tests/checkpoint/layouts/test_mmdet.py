"""The layout of mmdet and mmseg, against their own classes and their own converters."""

import pytest
import torch
from swin_libraries import CASES, draw_weights
from swin_weights import microsoft_state, relative_error

from swin_mm.checkpoint.layouts import MICROSOFT, MMDET


def stock_class(package):
    if package == "mmdet":
        from mmdet.models.backbones.swin import SwinTransformer as Stock
    else:
        from mmseg.models.backbones.swin import SwinTransformer as Stock
    return Stock


def test_from_own_agrees_with_mmdets_converter():
    from mmdet.models.backbones.swin import swin_converter

    source = microsoft_state(None)
    wanted = swin_converter(source)
    found = MMDET.from_own(MICROSOFT.to_own(source).state)
    assert {"backbone." + key for key in found} == {
        key for key in wanted if not key.endswith(("relative_position_index", "attn_mask"))
    }
    for key, value in found.items():
        assert torch.equal(value, wanted["backbone." + key]), key


@pytest.mark.parametrize("package", ["mmdet", "mmseg"])
@pytest.mark.parametrize("name", ["tiny-v1", "shallow-base-v1-window12"])
def test_outputs_equal_the_stock_class_at_full_width(package, name):
    """At any size and in every stage: both pad, and shift always."""
    case = CASES[name]
    stock = stock_class(package)(**case.arguments)
    stock.train(False)
    backbone = draw_weights(case.build())
    stock.load_state_dict(MMDET.from_own(backbone.state_dict()), strict=False)
    image = torch.randn(1, 3, 129, 201, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, wanted in zip(backbone(image), stock(image), strict=True):
            assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize(
    "key",
    [
        "layers.0.blocks.0.norm1.weight",
        "stages.0.blocks.0.attn.qkv.weight",
        "stages.0.blocks.0.mlp.fc1.weight",
        "patch_embed.proj.weight",
        "stages.0.blocks.0.ffn.layers.2.weight",
    ],
)
def test_names_of_other_layouts_are_unknown(key):
    assert MMDET.to_own({key: torch.zeros(1)}).unknown == [key]


@pytest.mark.parametrize("shape", [(), (0,), (6,), (32, 6)], ids=str)
def test_merging_of_a_wrong_shape_is_left_for_the_fit_to_report(shape):
    key = "stages.0.downsample.reduction.weight"
    state = MMDET.to_own({key: torch.zeros(shape)}).state
    assert state["layers.0.downsample.reduction.weight"].shape == shape
    back = MMDET.from_own(state)
    assert back[key].shape == shape
