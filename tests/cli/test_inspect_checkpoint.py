"""`swin-mm inspect`: what it says about a file, to people and to machines."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from swin_weights import SMALL, microsoft_state

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint.layouts import HUGGINGFACE, MMDET, TIMM
from swin_mm.cli import main as cli
from swin_mm.registry import MODELS

# Of `tests/swin_weights.py`, counted by hand: patch embedding, blocks of four stages, mergings.
PARAMETERS = (
    (8 * 48 + 8 + 16)
    + sum(
        depth * (4 * width + 169 * heads + 12 * width**2 + 9 * width)
        for width, depth, heads in ((8, 2, 1), (16, 2, 2), (32, 2, 2), (64, 1, 4))
    )
    + sum(8 * width**2 + 8 * width for width in (8, 16, 32))
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SWIN_MM_DEBUG", raising=False)


@pytest.fixture
def run(capsys):
    """Runs `swin-mm inspect`; returns exit status, output and errors."""

    def inspect(*arguments):
        status = cli.main(["inspect", *arguments])
        return status, *capsys.readouterr()

    return inspect


@pytest.fixture
def facts(run):
    """Runs `swin-mm inspect --json` on a checkpoint; returns what it says."""

    def inspect(checkpoint):
        torch.save(checkpoint, "swin.pth")
        status, output, errors = run("swin.pth", "--json")
        assert (status, errors) == (0, "")
        return json.loads(output)

    return inspect


def rows(output):
    """The table as a dict."""
    cells = [line.split("│")[1:3] for line in output.splitlines() if "│" in line]
    return {name.strip(): text.strip() for name, text in cells}


def test_a_classifier_of_microsoft(run):
    torch.save({"model": microsoft_state(), "epoch": 300, "optimizer": {}}, "swin.pth")
    status, output, errors = run("swin.pth")
    assert (status, errors) == (0, "")
    table = rows(output)
    assert table.pop("file").startswith("swin.pth (0.6 MiB)")
    assert table == {
        "layout": "Microsoft",
        "model": "Swin V1 embed_dims 8, depths 2-2-2-1, num_heads 1-2-2-4, window 7",
        "window": "7 x 7 tokens",
        "input channels": "3",
        "patch": "4 x 4 pixels",
        "parameters": f"{PARAMETERS / 1e6:.2f} M in 104 tensors of float32",
        "output norms": "none",
        "prefix": "none",
        "within": "'model'",
        "to load it": "dict(type='swin_mm.SwinTransformer', embed_dims=8, depths=(2, 2, 2, 1), "
        "num_heads=(1, 2, 2, 4), window_size=7)",
        "not needed": "2 x norm.*, 2 x head.*, 7 x relative_position_index, 3 x attn_mask",
        "beside it": "epoch: 300; optimizer: 0 entries",
    }


def test_a_folder_of_a_sharded_training_has_the_size_of_its_files(run):
    Path("epoch_7").mkdir()
    torch.save({"checkpoint": {"model": microsoft_state()}, "divided": []}, "epoch_7/index.pth")
    Path("epoch_7", "__0_0.distcp").write_bytes(bytes(2**20))
    status, output, errors = run("epoch_7")
    assert (status, errors) == (0, "")
    assert rows(output)["file"].startswith("epoch_7 (1.6 MiB)")


def test_a_detector_of_mmdet(run):
    backbone = MMDET.from_own(SwinTransformer(arch="tiny").state_dict())
    state = {f"backbone.{key}": value for key, value in backbone.items()}
    state |= {"neck.a": torch.zeros(1), "neck.b": torch.zeros(1), "rpn_head.a": torch.zeros(1)}
    meta = {"epoch": 12, "mmengine_version": "0.10.7", "cfg": "a = 1\nb = 2", "time": "x" * 100}
    optimizer = {"state": {0: {}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, "swin.pth")
    table = rows(run("swin.pth")[1])
    assert table["model"] == "Swin V1 tiny, window 7"
    assert table["output norms"] == "norm0, norm1, norm2, norm3"
    assert (table["prefix"], table["within"]) == ("backbone.", "'state_dict'")
    assert table["to load it"] == "dict(type='swin_mm.SwinTransformer', arch='tiny', window_size=7)"
    assert table["other parts"] == "neck (2 tensors), rpn_head (1 tensors)"
    assert table["beside it"] == "meta: epoch 12, mmengine_version 0.10.7; optimizer: 2 entries"
    assert "not needed" not in table


def test_for_machines(facts):
    found = facts({"model": microsoft_state(), "epoch": 300})
    assert found["parameters"] == PARAMETERS
    assert found["variant"] == {
        "version": 1,
        "depths": [2, 2, 2, 1],
        "qkv_bias": True,
        "patch_norm": True,
        "use_abs_pos_embed": False,
        "context_scales": 0,
        "num_heads": [1, 2, 2, 4],
        "embed_dims": 8,
        "in_channels": 3,
        "patch_size": [4, 4],
        "mlp_ratio": 4.0,
        "window_size": [7, 7],
    }
    assert {"norm.weight", "head.weight"} <= set(found["surplus"])
    assert (found["layout"], found["arch"], found["wrapper"]) == ("Microsoft", None, "model")
    assert found["beside"] == {"epoch": 300}


@pytest.mark.parametrize("arch", ["tiny", "small", "base", "large"])
def test_published_variants_are_named(facts, arch):
    with torch.device("meta"):
        state = SwinTransformer(arch=arch).state_dict()
    # One number for each tensor, expanded: the file stays small.
    state = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    found = facts(state)
    assert found["arch"] == arch
    assert found["model"] == f"Swin V1 {arch}, window 7"


def test_v2_in_safetensors(run):
    state = HUGGINGFACE.from_own(SwinTransformerV2(**SMALL).state_dict())
    save_file({key: value.contiguous() for key, value in state.items()}, "swin.safetensors")
    table = rows(run("swin.safetensors")[1])
    assert table["layout"] == "Hugging Face"
    assert table["model"] == "Swin V2 embed_dims 8, depths 2-2-2-1, num_heads 1-2-2-4"
    assert table["window"].startswith("not in the file: take that of training")
    assert table["to load it"] == (
        "dict(type='swin_mm.SwinTransformerV2', embed_dims=8, depths=(2, 2, 2, 1), "
        "num_heads=(1, 2, 2, 4))"
    )


UNUSUAL = {
    "in_channels": (dict(in_channels=4), "in_channels=4"),
    "patch_size": (dict(patch_size=2, strides=(2, 2, 2, 2)), "patch_size=2, strides=(2, 2, 2, 2)"),
    "patches": (
        dict(patch_size=(2, 4), strides=((2, 4), 2, 2, 2)),
        "patch_size=(2, 4), strides=((2, 4), 2, 2, 2)",
    ),
    "stages": (
        dict(depths=(1, 1), num_heads=(1, 2), out_indices=(0, 1)),
        "depths=(1, 1), num_heads=(1, 2), window_size=7, out_indices=(0, 1)",
    ),
    "mlp_ratio": (dict(mlp_ratio=2), "mlp_ratio=2.0"),
    "qkv_bias": (dict(qkv_bias=False), "qkv_bias=False"),
    "patch_norm": (dict(patch_norm=False), "patch_norm=False"),
    "use_abs_pos_embed": (dict(use_abs_pos_embed=True), "use_abs_pos_embed=True"),
    "window_size": (dict(window_size=12), "window_size=12"),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", UNUSUAL)
def test_the_config_it_suggests_takes_the_file(run, name, version):
    arguments, shown = UNUSUAL[name]
    kind = SwinTransformer if version == 1 else SwinTransformerV2
    state = kind(**(SMALL | arguments)).state_dict()
    torch.save(state, "swin.pth")
    suggestion = rows(run("swin.pth")[1])["to load it"]
    if version == 2:  # whose files do not tell it
        shown = shown.replace("window_size=7, ", "").replace("window_size=12", "")
    assert shown in suggestion
    backbone = MODELS.build(eval(suggestion))
    backbone.load_state_dict(state, strict=True)
    assert backbone.load_report.resized == ()


def test_a_rectangular_window_is_not_guessed(run):
    torch.save(SwinTransformer(**(SMALL | dict(window_size=(4, 8)))).state_dict(), "swin.pth")
    table = rows(run("swin.pth")[1])
    assert table["window"] == "not square, and the file does not say its sides"
    assert "window_size" not in table["to load it"]


def test_mixed_context_is_named(run):
    mix = {"layers.0.blocks.0.attn.context_mix": torch.zeros(1, 8, 16)}
    torch.save(microsoft_state() | mix, "swin.pth")
    table = rows(run("swin.pth")[1])
    assert table["model"].endswith("window 7, mixed context of 2 scales")
    assert table["mixed context"] == "2 scales; the config must name them in context_scales"


def test_unknown_keys_are_shown(run):
    torch.save(TIMM.from_own(SwinTransformer(**SMALL).state_dict()) | {"x": torch.ones(1)}, "a.pth")
    assert rows(run("a.pth")[1])["not understood"] == "x"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "cannot load checkpoint swin.pth: the file is empty"),
        (b"<html>", "cannot load checkpoint swin.pth: it is an HTML page"),
        ({"layer1.0.conv1.weight": torch.zeros(1)}, "cannot use swin.pth: no Swin in it, it looks"),
        ({"state_dict": {}}, "cannot use swin.pth: there are no weights in it"),
    ],
    ids=["empty", "html", "resnet", "no-weights"],
)
def test_a_bad_file_is_one_line_and_exit_status_one(run, tmp_path, content, wanted):
    if isinstance(content, bytes):
        (tmp_path / "swin.pth").write_bytes(content)
    else:
        torch.save(content, "swin.pth")
    status, output, errors = run("swin.pth")
    assert (status, output) == (1, "")
    assert errors.startswith(f"swin-mm: error: {wanted}")
    assert errors.count("\n") == 1


def test_keys_that_are_no_texts_are_shown(facts):
    found = facts({"model": microsoft_state(), 1: 2.5, ("a", None): "b"})
    assert found["beside"] == {"1": 2.5, "('a', None)": "b"}


def test_one_of_two_backbones(run):
    state = {f"{n}.{k}": v for n in ("teacher", "student") for k, v in microsoft_state().items()}
    torch.save(state, "swin.pth")
    assert run("swin.pth")[0] == 1
    status, output, _ = run("swin.pth", "--prefix", "student.")
    assert status == 0
    assert rows(output)["prefix"] == "student."


ESCAPE = "\x1b]0;owned\x07\x1b[31m"


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_escapes_in_a_file_reach_no_terminal(run, options):
    state = microsoft_state() | {f"head.{ESCAPE}": torch.zeros(1), ESCAPE: torch.zeros(1)}
    checkpoint = {"model": state, ESCAPE: ESCAPE, "args": {ESCAPE: 1}, "note": ESCAPE}
    torch.save(checkpoint, "swin.pth")
    status, output, errors = run("swin.pth", *options)
    assert (status, errors) == (0, "")
    assert "owned" in output and all(char.isprintable() or char == "\n" for char in output)
    torch.save({ESCAPE: torch.zeros(1)}, "swin.pth")
    status, output, errors = run("swin.pth", *options)
    assert status == 1 and "owned" in errors and errors.strip("\n").isprintable()


def test_a_flipped_byte_is_one_line_and_exit_status_one(run):
    torch.save(microsoft_state(), "swin.pth")
    content = bytearray(Path("swin.pth").read_bytes())
    content[content.index(microsoft_state()["norm.weight"].numpy().tobytes())] ^= 1
    Path("swin.pth").write_bytes(content)
    status, output, errors = run("swin.pth")
    assert (status, output) == (1, "")
    assert "is damaged; copy or download it again" in errors and errors.count("\n") == 1
