"""Which layout can hold what."""

import re

import pytest
import torch
from swin_weights import SMALL, randomise
from torch.nn.utils import prune

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.convert import convert
from swin_mm.checkpoint.layouts import HUGGINGFACE, LAYOUTS, MICROSOFT, MMDET, TIMM, TORCHVISION

PARTS = {
    "pruned": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "weight norm": torch.nn.utils.weight_norm,
    "spectral norm": torch.nn.utils.spectral_norm,
}
NORMS = [f"norm{i}.{part}" for i in range(4) for part in ("weight", "bias")]


def weights(version=1, **arguments):
    kind = SwinTransformer if version == 1 else SwinTransformerV2
    return randomise(kind(**(SMALL | arguments))).state_dict()


@pytest.mark.parametrize("split", PARTS.values(), ids=list(PARTS))
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_in_parts_are_refused(split):
    backbone = SwinTransformer(**SMALL)
    for stage in backbone.layers:
        for block in stage.blocks:
            split(block.mlp.fc1)
    with pytest.raises(CheckpointError, match=r"such as layers\.0\.blocks\.0\.mlp\.fc1\.weight_"):
        convert(backbone.state_dict(), MMDET)


PAIRS = [
    pytest.param(version, layout, id=f"{layout.name}-v{version}")
    for layout in LAYOUTS
    for version in layout.versions
]


@pytest.mark.parametrize("layout", [TIMM, TORCHVISION], ids=lambda layout: layout.name)
def test_classification_has_no_output_norms(layout):
    assert convert(weights(), layout).left_out == NORMS
    assert convert(weights(out_indices=(1, 2)), layout).left_out == NORMS[2:6]


@pytest.mark.parametrize("layout", [MICROSOFT, MMDET, HUGGINGFACE], ids=lambda layout: layout.name)
def test_dense_prediction_has_output_norms(layout):
    assert convert(weights(), layout).left_out == []


@pytest.mark.parametrize("out_indices", [(0,), (0, 1), (2,)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_stages_that_are_not_there_are_not_missed(layout, out_indices):
    state = weights(out_indices=out_indices)
    converted = convert(state, layout)
    assert layout.to_own(converted.state).state.keys() == state.keys() - set(converted.left_out)


@pytest.mark.parametrize(
    "key",
    [
        "layers.2.blocks.1.mlp.fc1.bias",
        "layers.0.blocks.0.attn.relative_position_bias_table",
        "layers.1.downsample.norm.weight",
    ],
)
def test_an_incomplete_backbone_is_refused(key):
    state = weights()
    del state[key]
    with pytest.raises(CheckpointError, match=f"it is incomplete, without {re.escape(key)}$"):
        convert(state, MMDET)


def test_a_version_that_a_library_lacks_is_refused():
    with pytest.raises(CheckpointError, match="it is a Swin V2, and mmdet has none"):
        convert(weights(2), MMDET)


@pytest.mark.parametrize("layout", [MMDET, TIMM, TORCHVISION, HUGGINGFACE], ids=lambda la: la.name)
def test_mixed_context_is_not_left_out(layout):
    mixes = {
        f"layers.{i}.blocks.{j}.attn.context_mix": torch.ones(2**i, 8, 16)
        for i, depth in enumerate(SMALL["depths"])
        for j in range(depth)
    }
    state = weights() | mixes
    with pytest.raises(CheckpointError, match=f"{layout.name} has no place for 2 x layers"):
        convert(state, layout)


@pytest.mark.parametrize("layout", [TIMM, TORCHVISION, HUGGINGFACE], ids=lambda la: la.name)
def test_the_extra_norms_of_large_models_are_not_left_out(layout):
    state = weights(2, extra_norm_every_n_blocks=2)
    with pytest.raises(CheckpointError, match=rf"{layout.name} has no place for 2 x layers\.0"):
        convert(state, layout)
    assert convert(state, MICROSOFT).left_out == []


@pytest.mark.parametrize(("version", "layout"), PAIRS)
def test_tensors_share_no_memory_and_are_contiguous(version, layout):
    """Else a file would hold the whole of a tensor that was split, and safetensors refuses it."""
    state = weights(version)
    converted = convert(state, layout).state
    memory = [value.untyped_storage().data_ptr() for value in converted.values()]
    assert len(set(memory)) == len(memory)
    assert not set(memory) & {value.untyped_storage().data_ptr() for value in state.values()}
    for value in converted.values():
        assert value.is_contiguous()
        assert value.untyped_storage().nbytes() == value.nbytes
