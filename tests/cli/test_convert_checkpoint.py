"""`swin-mm convert`: what it writes, what it says, and what it refuses."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from swin_weights import SMALL, microsoft_state, randomise, relative_error

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint.layouts import MICROSOFT
from swin_mm.cli import main as cli
from swin_mm.cli.convert_checkpoint import TARGETS


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWIN_MM_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Runs `swin-mm convert`; returns exit status, output and errors."""

    def convert(*arguments):
        status = cli.main(["convert", *map(str, arguments)])
        return status, *capsys.readouterr()

    return convert


@pytest.fixture
def detector():
    """A checkpoint as mmdet writes it: `detector.pth`; returns the backbone's weights."""
    own = MICROSOFT.to_own(microsoft_state(None)).state
    state = {f"backbone.{key}": value for key, value in TARGETS["mmdet"].from_own(own).items()}
    state |= {f"neck.{i}.weight": torch.zeros(2) for i in range(6)}
    torch.save({"state_dict": state, "meta": {"epoch": 12}, "optimizer": {}}, "detector.pth")
    return own


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def test_a_detector_to_microsofts_layout(run, detector):
    status, output, errors = run("detector.pth", "swin.pth", "--to", "microsoft")
    assert (status, errors) == (0, "")
    assert output.splitlines() == [
        "detector.pth: mmdet layout, Swin V1 embed_dims 8, depths 2-2-2-1, num_heads 1-2-2-4, "
        "window 7, prefix backbone., dropped 6 x neck.*, meta, optimizer",
        "swin.pth: 112 tensors in the Microsoft layout",
    ]
    # Where Microsoft's code looks for it.
    written = torch.load("swin.pth", weights_only=True)
    assert written.keys() == {"model"}
    assert equal(written["model"], detector)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize("to", TARGETS)
def test_there_and_back(run, detector, to, suffix):
    assert run("detector.pth", f"there{suffix}", "--to", to)[0] == 0
    status, output, _ = run(f"there{suffix}", "back.pth", "--to", "mmdet")
    assert status == 0
    # mmpretrain's V1 has mmdet's layout.
    layout = TARGETS["mmdet" if to == "mmpretrain" else to]
    assert output.startswith(f"there{suffix}: {layout.name} layout, Swin V1")
    back = TARGETS["mmdet"].to_own(torch.load("back.pth", weights_only=True)).state
    lost = set(TARGETS[to].list_lost(detector))
    assert all(key.startswith("norm") for key in lost)
    assert equal(back, {key: value for key, value in detector.items() if key not in lost})


def test_v2_there_and_back(run):
    state = randomise(SwinTransformerV2(**SMALL)).state_dict()
    torch.save(state, "v2.pth")
    assert run("v2.pth", "hf.safetensors", "--to", "huggingface")[0] == 0
    status, output, _ = run("hf.safetensors", "back.pth", "--to", "microsoft")
    assert status == 0
    assert output.startswith("hf.safetensors: Hugging Face layout, Swin V2 embed_dims 8, ")
    back = torch.load("back.pth", weights_only=True)["model"]
    assert equal(back, {key: value for key, value in state.items() if key in back})


def test_half_precision_stays_half(run):
    state = {k: v.half() for k, v in microsoft_state().items() if v.is_floating_point()}
    torch.save({"model": state}, "half.pth")
    assert run("half.pth", "out.pth", "--to", "torchvision")[0] == 0
    dtypes = {value.dtype for value in torch.load("out.pth", weights_only=True).values()}
    assert dtypes == {torch.float16}


def test_what_classification_has_no_place_for_is_told(run, detector):
    _, output, _ = run("detector.pth", "swin.safetensors", "--to", "timm")
    assert output.splitlines()[1] == (
        "swin.safetensors: 104 tensors in the timm layout, without 2 x norm0.*, 2 x norm1.*, "
        "2 x norm2.*, 2 x norm3.*"
    )


def test_transformers_loads_what_is_written(run, detector):
    import transformers

    config = transformers.SwinConfig(
        embed_dim=8, depths=[2, 2, 2, 1], num_heads=[1, 2, 2, 4], drop_path_rate=0.0
    )
    os.mkdir("swin")
    config.save_pretrained("swin")
    assert run("detector.pth", "swin/model.safetensors", "--to", "huggingface")[0] == 0
    with safe_open("swin/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    backbone = transformers.SwinBackbone.from_pretrained(
        "swin", out_features=["stage1", "stage2", "stage3", "stage4"]
    ).eval()
    ours = SwinTransformer(**SMALL).eval()
    ours.load_state_dict(detector)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, wanted in zip(backbone(image).feature_maps, ours(image), strict=True):
            assert relative_error(found, wanted) < 1e-5


def test_torchvision_loads_what_is_written(run, detector):
    from torchvision.models import SwinTransformer as Torchvision

    assert run("detector.pth", "swin.pth", "--to", "torchvision")[0] == 0
    model = Torchvision([4, 4], 8, [2, 2, 2, 1], [1, 2, 2, 4], [7, 7])
    missing, unexpected = model.load_state_dict(
        torch.load("swin.pth", weights_only=True), strict=False
    )
    assert unexpected == []
    missing = {key for key in missing if not key.endswith("relative_position_index")}
    assert missing == {"norm.weight", "norm.bias", "head.weight", "head.bias"}


def test_an_existing_file_is_kept_unless_forced(run, detector, folder):
    (folder / "swin.pth").write_text("precious")
    status, output, errors = run("detector.pth", "swin.pth", "--to", "timm")
    assert (status, output) == (1, "")
    assert errors == "swin-mm: error: swin.pth exists; --force overwrites it\n"
    assert (folder / "swin.pth").read_text() == "precious"
    assert run("detector.pth", "swin.pth", "--to", "timm", "--force")[0] == 0
    assert len(torch.load("swin.pth", weights_only=True)) == 104


def test_a_file_can_be_converted_in_place(run, detector):
    assert run("detector.pth", "detector.pth", "--to", "timm", "--force")[0] == 0
    assert len(torch.load("detector.pth", weights_only=True)) == 104


def test_a_failure_while_writing_leaves_nothing_behind(run, detector, folder, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    (folder / "swin.pth").write_text("precious")
    before = sorted(folder.iterdir())
    monkeypatch.setattr(os, "fsync", fail)
    status, _, errors = run("detector.pth", "swin.pth", "--to", "timm", "--force")
    assert status == 1
    assert errors == "swin-mm: error: [Errno 28] No space left on device\n"
    assert sorted(folder.iterdir()) == before
    assert (folder / "swin.pth").read_text() == "precious"


def test_folders_are_made(run, detector):
    assert run("detector.pth", "a/b/swin.bin", "--to", "timm")[0] == 0
    assert len(torch.load("a/b/swin.bin", weights_only=True)) == 104


def test_one_of_two_backbones(run, detector):
    both = {f"student.{key}": value for key, value in detector.items()}
    both |= {f"teacher.{key}": value + 1 for key, value in detector.items()}
    torch.save(both, "two.pth")
    status, _, errors = run("two.pth", "swin.safetensors", "--to", "microsoft")
    assert status == 1
    assert errors.startswith("swin-mm: error: cannot use two.pth: it holds 2 backbones")
    arguments = ("two.pth", "swin.safetensors", "--to", "microsoft", "--prefix", "teacher.")
    assert run(*arguments)[0] == 0
    assert equal(load_file("swin.safetensors"), {k: v + 1 for k, v in detector.items()})


BAD_SOURCES = {
    "v2-to-mmdet": (
        lambda: SwinTransformerV2(**SMALL).state_dict(),
        "cannot convert bad.pth to the mmdet layout: it is a Swin V2, and mmdet has none",
    ),
    "unknown-key": (
        lambda: microsoft_state() | {"more.weight": torch.zeros(1)},
        "cannot convert bad.pth to the mmdet layout: the Microsoft layout has no more.weight",
    ),
    "resnet": (
        lambda: {"layer1.0.conv1.weight": torch.zeros(1)},
        "cannot use bad.pth: no Swin in it, it looks like a ResNet (layer1.0.conv1.weight)",
    ),
    "list": (lambda: [1], "cannot load checkpoint bad.pth: it holds a list, wanted a dict"),
}


def test_a_prefix_chooses_the_student_of_self_distillation(run):
    teacher = microsoft_state()
    student = {f"module.{key}": value + 1 for key, value in teacher.items()}
    torch.save({"teacher": teacher, "student": student}, "both.pth")
    assert run("both.pth", "default.pth", "--to", "microsoft")[0] == 0
    assert run("both.pth", "chosen.pth", "--to", "microsoft", "--prefix", "student.")[0] == 0
    for path, weights in (("default.pth", teacher), ("chosen.pth", student)):
        found = torch.load(path, weights_only=True)["model"]["layers.0.blocks.0.attn.qkv.weight"]
        key = next(key for key in weights if key.endswith("layers.0.blocks.0.attn.qkv.weight"))
        assert torch.equal(found, weights[key])


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_bad_source_is_refused_in_one_line_and_nothing_is_written(run, folder, name):
    content, wanted = BAD_SOURCES[name]
    torch.save(content(), "bad.pth")
    status, _, errors = run("bad.pth", "swin.pth", "--to", "mmdet")
    assert status == 1
    assert errors == f"swin-mm: error: {wanted}\n"
    assert [path.name for path in folder.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("swin.onnx", "DST must end in one of .pth, .bin, .safetensors, got swin.onnx"),
        ("swin", "DST must end in one of .pth, .bin, .safetensors, got swin"),
        ("folder.pth", "DST must be a file, folder.pth is a folder"),
    ],
)
def test_a_bad_target_is_refused_before_any_work(run, target, wanted):
    os.mkdir("folder.pth")
    status, output, errors = run("missing.pth", target, "--to", "timm")
    assert (status, output) == (1, "")
    assert errors == f"swin-mm: error: {wanted}\n"


def test_a_missing_source_is_named(run):
    status, _, errors = run("missing.pth", "swin.pth", "--to", "timm")
    assert status == 1
    assert errors == ("swin-mm: error: cannot load checkpoint missing.pth: there is no such file\n")


def test_a_file_without_a_target_layout_is_refused(run):
    torch.save({}, "a.pth")
    status, _, errors = run("a.pth", "b.pth")
    assert status == 1 and not os.path.exists("b.pth")
    assert "--to is needed, with one of microsoft, " in errors


def test_an_incomplete_command_line_exits_with_two():
    with pytest.raises(SystemExit) as raised:
        cli.main(["convert", "a.pth"])
    assert raised.value.code == 2
