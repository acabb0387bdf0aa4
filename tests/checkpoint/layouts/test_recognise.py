"""Telling layouts apart, and naming what is none."""

import pytest
import torch
from swin_weights import microsoft_state

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import (
    LAYOUTS,
    MICROSOFT,
    MMDET,
    MMPRETRAIN,
    describe_foreign,
    recognise,
)


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
@pytest.mark.parametrize("layout", [MICROSOFT, MMDET], ids=lambda layout: layout.name)
def test_layout_and_prefix_are_recognised(layout, prefix):
    state = layout.from_own(MICROSOFT.to_own(microsoft_state(None)).state)
    state = {prefix + key: value for key, value in state.items()}
    assert recognise(state | {"roi_head.weight": torch.zeros(1)}) == (layout, prefix, 1, ())


def test_every_layout_is_recognised_alone():
    own = MICROSOFT.to_own(microsoft_state(None)).state
    for layout in LAYOUTS:
        state = layout.from_own(own)
        # In V1, mmpretrain's and mmdet's are the same, where there are norms of all outputs.
        wanted = MMDET if layout is MMPRETRAIN else layout
        assert recognise(state).layout is wanted
        assert sum(bool(other.find_prefixes(state)) for other in LAYOUTS) == 1


def test_a_recognised_backbone_is_named_in_words():
    state = {f"net.{key}": value for key, value in microsoft_state().items()}
    assert str(recognise(state)) == "a Swin V1 in the Microsoft layout under 'net.'"


def test_nothing_is_recognised_in_another_model():
    assert recognise({"layer1.0.conv1.weight": torch.zeros(1)}) is None
    assert recognise({}) is None


def test_two_backbones_are_refused_by_name():
    state = {
        f"{name}.backbone.{key}": value
        for name in ("teacher", "student")
        for key, value in microsoft_state().items()
    }
    with pytest.raises(CheckpointError, match=r"2 backbones.*prefix='teacher\.backbone\.'"):
        recognise(state)


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("backbone.layer1.0.conv1.weight", "looks like a ResNet (backbone.layer1.0.conv1.weight)"),
        ("stages.0.blocks.0.attn.meta_mlp.fc1.weight", "looks like a Swin V2-CR of timm"),
        ("stages.0.0.depthwise_conv.weight", "looks like a ConvNeXt"),
        ("blocks.0.attn.qkv.weight", "looks like a ViT"),
        ("fc.weight", "its keys are a, fc.weight"),
    ],
)
def test_other_models_are_named(key, wanted):
    assert wanted in describe_foreign(["a", key])


def test_few_of_many_unknown_keys_are_named():
    assert describe_foreign("abcde") == "its keys are a, b, c, ..."
