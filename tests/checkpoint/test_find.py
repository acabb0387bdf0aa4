"""Finding a backbone among what else a checkpoint file holds."""

import pytest
import torch
from mmengine.runner import CheckpointLoader
from swin_weights import SMALL, microsoft_state

from swin_mm import SwinTransformerV2
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.find import find_backbone
from swin_mm.checkpoint.layouts import MICROSOFT, MMDET
from swin_mm.checkpoint.variant import list_output_norms


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
    assert list_output_norms(backbone.state) == ["norm0", "norm1", "norm2", "norm3"]
    assert backbone.unused == backbone.unknown == []


def test_a_bare_classifier():
    source = microsoft_state()
    backbone = find_backbone(source | {"more": torch.zeros(1)})
    assert (backbone.wrapper, backbone.prefix, backbone.layout) == (None, "", MICROSOFT)
    assert {"norm.weight", "head.bias"} <= set(backbone.unused)
    assert backbone.unknown == ["more"]
    assert backbone.others == backbone.beside == list_output_norms(backbone.state) == []


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


WRAPPED = {
    "tutorial": (("model_state_dict",), ""),
    "net": (("net",), ""),
    "deepspeed": (("module",), "module."),
    "self-distillation": (("teacher",), "module."),
    "averages": (("params_ema",), ""),
    "ema": (("ema",), ""),
    "compiled": (("state_dict",), "_orig_mod."),
    "compiled-and-parallel": (("model",), "module._orig_mod."),
    "two-levels": (("checkpoint", "model_state_dict"), ""),
    "three-levels": (("state", "model", "weights"), "_orig_mod."),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_weights_are_found_under_what_scripts_keep_them(name, tmp_path):
    keys, prefix = WRAPPED[name]
    weights = detector_state()
    checkpoint = {prefix + key: value for key, value in weights.items()}
    for key in reversed(keys):
        checkpoint = {"epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}, key: checkpoint}
    backbone = find_backbone(checkpoint)
    assert backbone.wrapper == ".".join(keys)
    assert backbone.prefix == prefix.replace("_orig_mod.", "") + "backbone."
    assert all(torch.equal(v, weights[f"backbone.{k}"]) for k, v in backbone.source.items())
    # mmengine looks under `state_dict`, and takes `module.` off by itself.
    torch.save(checkpoint, tmp_path / "a.pth")
    found = CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"))["state_dict"]
    found = {key.removeprefix("module."): value for key, value in found.items()}
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_a_prefix_chooses_between_sets_of_weights():
    sets = {
        name: {key: torch.full_like(value, i) for key, value in detector_state().items()}
        for i, name in enumerate(("student", "teacher", "ema"))
    }
    assert all((v == 1).all() for v in find_backbone(sets).source.values())  # the teacher
    for i, name in enumerate(sets):
        backbone = find_backbone(sets, f"{name}.")
        assert backbone.wrapper == name
        assert all((value == i).all() for value in backbone.source.values())
        assert set(backbone.beside) == set()


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
