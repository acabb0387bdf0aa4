"""Finding a backbone among what else a checkpoint file holds."""

import pytest
import torch
from swin_weights import SMALL, microsoft_state

from swin_mm import SwinTransformerV2
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.find import find_backbone
from swin_mm.checkpoint.layouts import MICROSOFT, MMDET


def detector_state(layout=MMDET):
    backbone = layout.from_own(MICROSOFT.to_own(microsoft_state(None)).state)
    state = {f"backbone.{key}": value for key, value in backbone.items()}
    return state | {"neck.weight": torch.zeros(2), "roi_head.bbox_head.bias": torch.zeros(2)}


def test_a_detector_of_mmdet():
    checkpoint = {"meta": {}, "state_dict": detector_state(), "optimizer": {}}
    backbone = find_backbone(checkpoint)
    assert (backbone.wrapper, backbone.prefix, backbone.layout) == (
        "state_dict",
        "backbone.",
        MMDET,
    )
    assert backbone.state.keys() == MICROSOFT.to_own(microsoft_state(None)).state.keys()
    assert backbone.others == ["neck.weight", "roi_head.bbox_head.bias"]
    assert backbone.beside == ["meta", "optimizer"]
    assert backbone.list_output_norms() == ["norm0", "norm1", "norm2", "norm3"]
    assert backbone.surplus == backbone.unknown == []


def test_a_bare_classifier():
    source = microsoft_state()
    backbone = find_backbone(source | {"more": torch.zeros(1)})
    assert (backbone.wrapper, backbone.prefix, backbone.layout) == (None, "", MICROSOFT)
    assert {"norm.weight", "head.bias"} <= set(backbone.surplus)
    assert backbone.unknown == ["more"]
    assert backbone.others == backbone.beside == backbone.list_output_norms() == []


def test_the_window_of_v2_is_told_by_its_buffers():
    state = SwinTransformerV2(**SMALL).state_dict()
    assert "window_size" not in find_backbone(state).read_variant()
    table = {"layers.0.blocks.0.attn.relative_coords_table": torch.zeros(1, 23, 23, 2)}
    assert find_backbone(state | table).read_variant()["window_size"] == (12, 12)


def test_one_of_two_backbones_is_chosen_by_prefix():
    state = {
        f"{name}.{key}": value
        for name in ("teacher", "student")
        for key, value in detector_state().items()
    }
    with pytest.raises(CheckpointError, match="2 backbones"):
        find_backbone(state)
    backbone = find_backbone(state, "student.")
    assert backbone.prefix == "student.backbone."
    assert "teacher.backbone.patch_embed.projection.weight" in backbone.others


@pytest.mark.parametrize(
    ("checkpoint", "prefix", "wanted"),
    [
        ({}, "", "there are no weights in it"),
        ({"state_dict": {}, "meta": {}}, "", "there are no weights in it"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "", "no Swin in it, it looks like a ResNet"),
        ({0: torch.zeros(1)}, "", "no Swin in it, its keys are 0"),
        (microsoft_state(), "backbone.", r"no key begins with 'backbone\.'"),
        (
            microsoft_state() | {"layers.0.blocks.0.norm1.weight": [1.0]},
            "",
            r"layers\.0\.blocks\.0\.norm1\.weight is a list, wanted a tensor",
        ),
    ],
    ids=["empty", "empty-wrapper", "resnet", "numbers", "prefix", "list"],
)
def test_what_holds_no_backbone_is_refused(checkpoint, prefix, wanted):
    with pytest.raises(CheckpointError, match=wanted):
        find_backbone(checkpoint, prefix)
