"""torchvision's layout against its own classes."""

import pytest
import torch
import torchvision
from swin_libraries import CASES, build_torchvision

from swin_mm.checkpoint.layouts import TORCHVISION

CLASSIFIER = ["norm.weight", "norm.bias", "head.weight", "head.bias"]
QKV_BIAS = "features.1.0.attn.qkv.bias"


@pytest.fixture(params=["small-v1", "small-v2"])
def case(request):
    return CASES[request.param]


def without_derived(keys):
    return {key for key in keys if not key.endswith(("position_index", "coords_table"))}


@pytest.mark.parametrize("model", ["swin_t", "swin_v2_t"])
def test_names_and_shapes_of_the_published_model(model):
    source = getattr(torchvision.models, model)().state_dict()
    own, unused, unknown = TORCHVISION.to_own(source)
    assert unknown == []
    assert TORCHVISION.from_own(own).keys() == source.keys() - set(unused)


def test_the_bias_of_v2_is_split_in_order():
    source = build_torchvision(CASES["small-v2"]).state
    source[QKV_BIAS] = torch.arange(24.0)
    own = TORCHVISION.to_own(source).state
    assert own["layers.0.blocks.0.attn.q_bias"].tolist() == list(range(8))
    assert own["layers.0.blocks.0.attn.v_bias"].tolist() == list(range(16, 24))
    written = TORCHVISION.from_own(own)[QKV_BIAS]
    assert written.tolist() == [*range(8), *[0] * 8, *range(16, 24)]


@pytest.mark.parametrize("shape", [(25,), (24, 1), ()], ids=str)
def test_a_bias_that_cannot_be_split_is_unknown(shape):
    source = build_torchvision(CASES["small-v2"]).state | {QKV_BIAS: torch.zeros(shape)}
    assert TORCHVISION.to_own(source).unknown == [QKV_BIAS]


@pytest.mark.parametrize(
    "key",
    [
        "features.1.0.attn.q_bias",
        "layers.0.blocks.0.norm1.weight",
        "features.0.1.weight",
        "norm0.bias",
    ],
)
def test_other_names_are_unknown(key):
    source = build_torchvision(CASES["small-v2"]).state | {key: torch.zeros(8)}
    assert TORCHVISION.to_own(source).unknown == [key]


def test_torchvision_loads_what_is_written(case):
    reference = build_torchvision(case)
    written = TORCHVISION.from_own(case.build().state_dict())
    missing, unexpected = reference.module.load_state_dict(written, strict=False)
    assert unexpected == []
    assert without_derived(missing) == set(CLASSIFIER)
