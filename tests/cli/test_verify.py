"""`swin-mm convert --verify`: models of other libraries, before and after."""

import pytest
import torch
from swin_weights import SMALL, microsoft_state, randomise

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.convert import convert
from swin_mm.checkpoint.find import find_backbone
from swin_mm.checkpoint.layouts import (
    HUGGINGFACE,
    LAYOUTS,
    MICROSOFT,
    MMDET,
    TIMM,
    TORCHVISION,
)
from swin_mm.cli import main as cli
from swin_mm.cli import verify as verify_module
from swin_mm.cli.verify import verify

# Smaller windows than published ones, for images of 64 pixels.
TOY = SMALL | dict(depths=(2, 2), num_heads=(1, 2), window_size=4, strides=(4, 2))
TOY |= dict(out_indices=(0, 1))
PACKAGES = {
    "Microsoft": "swin_mm",
    "mmdet": "mmdet",
    "mmpretrain": "swin_mm",
    "timm": "timm",
    "torchvision": "torchvision",
    "Hugging Face": "transformers",
}


def toy_source(layout, version=1, **arguments):
    kind = SwinTransformer if version == 1 else SwinTransformerV2
    state = randomise(kind(**(TOY | arguments))).state_dict()
    return find_backbone(convert(state, layout).state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "source", "target"),
    [
        pytest.param(version, source, target, id=f"v{version}-{source.name}-{target.name}")
        for version in (1, 2)
        for source in LAYOUTS
        for target in LAYOUTS
        if version in source.versions and version in target.versions
    ],
)
def test_libraries_agree(version, source, target):
    before = toy_source(source, version)
    summary = verify(before, convert(before.state, target).state, target)
    names = f"{PACKAGES[before.layout.name]} and {PACKAGES[target.name]} differ by "
    assert summary.startswith(names)
    assert float(summary.removeprefix(names).split()[0]) < 1e-5


FLIPPED = {
    1: [
        "patch_embed.norm.weight",
        "layers.0.blocks.1.attn.qkv.bias",
        "layers.0.blocks.1.attn.relative_position_bias_table",
        "layers.0.downsample.reduction.weight",
        "layers.1.blocks.1.mlp.fc2.bias",
    ],
    2: [
        "layers.0.blocks.0.attn.q_bias",
        "layers.0.blocks.1.attn.cpb_mlp.0.weight",
        "layers.1.blocks.1.attn.logit_scale",
        "layers.1.blocks.1.norm2.weight",
    ],
}


@pytest.mark.parametrize(
    ("version", "key", "target"),
    [
        pytest.param(version, key, target, id=f"{target.name}-v{version}-{key}")
        for version, keys in FLIPPED.items()
        for key in keys
        for target in (MMDET, TIMM, TORCHVISION, HUGGINGFACE)
        if version in target.versions
    ],
)
def test_a_difference_is_found(version, key, target):
    before = toy_source(MICROSOFT, version)
    changed = before.state | {key: before.state[key].flip(0)}
    with pytest.raises(CheckpointError, match=r"differ by \S+ of the largest value.*more than the"):
        verify(before, convert(changed, target).state, target)


@pytest.mark.parametrize("target", [MMDET, TIMM, TORCHVISION, HUGGINGFACE], ids=lambda la: la.name)
def test_what_is_not_a_number_is_no_agreement(target):
    before = toy_source(MICROSOFT)
    key = "layers.1.blocks.1.mlp.fc2.bias"
    changed = before.state | {key: torch.full_like(before.state[key], torch.nan)}
    with pytest.raises(CheckpointError, match="differ by nan"):
        verify(before, convert(changed, target).state, target)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(in_channels=4),
        dict(patch_size=2, strides=(2, 2)),
        dict(mlp_ratio=2),
        dict(qkv_bias=False),
    ],
    ids=lambda arguments: next(iter(arguments)),
)
@pytest.mark.parametrize("target", [MMDET, TIMM, HUGGINGFACE], ids=lambda layout: layout.name)
def test_arguments_are_read_off_the_weights(target, arguments):
    before = toy_source(MICROSOFT, **arguments)
    assert "differ by" in verify(before, convert(before.state, target).state, target)


@pytest.mark.parametrize("target", [MMDET, HUGGINGFACE], ids=lambda layout: layout.name)
def test_absolute_position_embeddings(target):
    """Images have their size then, and a stage with a map of one window is not compared."""
    before = toy_source(MICROSOFT, use_abs_pos_embed=True, pretrain_img_size=32)
    assert "differ by" in verify(before, convert(before.state, target).state, target)


def test_half_precision_is_compared_in_full():
    state = {key: value.half() for key, value in toy_source(MICROSOFT).state.items()}
    before = find_backbone(state)
    assert "differ by" in verify(before, convert(before.state, TIMM).state, TIMM)


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(verify_module, "find_spec", lambda name: None if name == "timm" else name)
    before = toy_source(TIMM)
    summary = verify(before, convert(before.state, MMDET).state, MMDET)
    assert summary.startswith("swin_mm (timm is not installed) and mmdet differ by ")


def test_what_a_library_cannot_build_is_told():
    before = toy_source(MICROSOFT, in_channels=4)  # torchvision's class takes three
    with pytest.raises(
        CheckpointError, match="torchvision cannot load the weights: (?s:.*)size mismatch"
    ):
        verify(before, convert(before.state, TORCHVISION).state, TORCHVISION)


def test_rectangular_windows_are_not_verified():
    before = toy_source(MICROSOFT, window_size=(2, 4))
    with pytest.raises(CheckpointError, match="square windows and patches, window_size is not"):
        verify(before, convert(before.state, TIMM).state, TIMM)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(microsoft_state(), "swin.pth")

    def convert_file():
        status = cli.main(["convert", "swin.pth", "out.pth", "--to", "mmdet", "--verify"])
        return status, *capsys.readouterr()

    return convert_file


def test_the_command_prints_the_difference(run, tmp_path):
    status, output, errors = run()
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert [line.split(":")[0] for line in lines] == ["swin.pth", "verified", "out.pth"]
    assert lines[1].startswith("verified: swin_mm and mmdet differ by ")
    assert (tmp_path / "out.pth").exists()


def test_the_command_writes_nothing_that_differs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(verify_module, "TOLERANCE", -1.0)
    status, _, errors = run()
    assert status == 1
    assert errors.startswith("swin-mm: error: cannot convert swin.pth to the mmdet layout: swin_mm")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out.pth").exists()
