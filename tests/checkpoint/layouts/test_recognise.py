"""Telling layouts apart, and naming what is none."""

import pytest
import torch
from swin_weights import microsoft_state

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.layouts import (
    describe_foreign,
    recognise,
)


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
