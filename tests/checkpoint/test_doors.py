"""The ways by which a user loads weights: through each of them, files of all libraries come alike.

The doors are real here, a detector of mmdet, mmengine's runner and `swin-mm test`, and so are the
files. What the hook behind the doors does is tested in `test_hook.py`.
"""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from safetensors.torch import save_file
from swin_weights import SMALL, randomise
from torch import Tensor, nn
from toy_task import write_toy_config

from swin_mm import SwinTransformer, SwinTransformerV2
from swin_mm.checkpoint import load_checkpoint_file
from swin_mm.checkpoint.layouts import HUGGINGFACE, MICROSOFT, MMDET, TIMM, TORCHVISION, Layout
from swin_mm.cli import main as cli
from swin_mm.cli import test as cli_test


class File(NamedTuple):
    """A published file: version of the Swin, layout, format, and key around the weights."""

    version: int
    layout: Layout
    suffix: str = ".pth"
    wrapper: str | None = None


FILES = {
    "mmdet": File(1, MMDET, wrapper="state_dict"),
    "microsoft": File(1, MICROSOFT, wrapper="model"),
    "microsoft-v2": File(2, MICROSOFT, wrapper="model"),
    "timm": File(1, TIMM, ".safetensors"),
    "timm-v2": File(2, TIMM),
    "torchvision": File(1, TORCHVISION),
    "torchvision-v2": File(2, TORCHVISION),
    "huggingface": File(1, HUGGINGFACE, ".bin"),
    "huggingface-v2": File(2, HUGGINGFACE, ".safetensors"),
}
CLASSES = {1: SwinTransformer, 2: SwinTransformerV2}


def backbone_cfg(version: int, **arguments) -> dict:
    return dict(type=f"swin_mm.{CLASSES[version].__name__}", **SMALL, **arguments)


def build_detector(version: int, **arguments) -> nn.Module:
    """A RetinaNet of mmdet on our backbone, which gets the arguments."""
    with MODELS.switch_scope_and_registry("mmdet") as registry:
        return registry.build(
            dict(
                type="RetinaNet",
                backbone=backbone_cfg(version, **arguments),
                neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
                bbox_head=dict(
                    type="RetinaHead",
                    num_classes=2,
                    in_channels=8,
                    feat_channels=8,
                    stacked_convs=1,
                    anchor_generator=dict(
                        type="AnchorGenerator",
                        scales=[4],
                        ratios=[1.0],
                        strides=[8, 16, 32, 64, 128],
                    ),
                ),
            )
        )


@MODELS.register_module()
class DoorModel(BaseModel):
    """The least that `swin-mm test` runs: a backbone, and a prediction for each sample."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.backbone = CLASSES[version](**SMALL)
        self.neck = nn.Linear(2, 2)

    def forward(self, inputs: Tensor, target: Tensor, index: Tensor, mode: str = "tensor") -> list:
        return list(target)


def save(state: dict, file: File, folder: Path) -> str:
    """Writes weights as they are published."""
    path = folder / f"weights{file.suffix}"
    state = {key: value.contiguous() for key, value in state.items()}
    if file.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state if file.wrapper is None else {file.wrapper: state, "epoch": 3}, path)
    return str(path)


def save_detector(state: dict, others: nn.Module, file: File, folder: Path) -> str:
    """Writes weights within those of a detector, whose other parts are as in `others`."""
    rest = {k: v for k, v in others.state_dict().items() if not k.startswith("backbone.")}
    path = str(folder / "detector.pth")
    state = {f"backbone.{key}": value for key, value in state.items()}
    torch.save({"state_dict": state | rest, "meta": {"epoch": 3}}, path)
    return path


# Each door takes a backbone's state dict, and gives the backbone that took it.


def by_load_state_dict(state, file, folder):
    backbone = CLASSES[file.version](**SMALL)
    backbone.load_state_dict(load_checkpoint_file(save(state, file, folder)))
    return backbone


def by_init_cfg_of_the_backbone(state, file, folder):
    cfg = dict(type="Pretrained", checkpoint=save(state, file, folder))
    detector = build_detector(file.version, init_cfg=cfg)
    detector.init_weights()
    return detector.backbone


def by_init_cfg_from_a_detector(state, file, folder):
    path = save_detector(state, build_detector(file.version), file, folder)
    cfg = dict(type="Pretrained", checkpoint=path, prefix="backbone.")
    detector = build_detector(file.version, init_cfg=cfg)
    detector.init_weights()
    return detector.backbone


def by_load_state_dict_of_a_detector(state, file, folder):
    detector = build_detector(file.version)
    path = save_detector(state, detector, file, folder)
    detector.load_state_dict(load_checkpoint_file(path)["state_dict"], strict=True)
    return detector.backbone


def by_load_from(state, file, folder):
    detector = build_detector(file.version)
    path = save_detector(state, build_detector(file.version), file, folder)
    runner = Runner(model=detector, work_dir=str(folder), load_from=path, default_scope="mmdet")
    runner.load_or_resume()
    return detector.backbone


def by_test_command(state, file, folder):
    path = save_detector(state, DoorModel(file.version), file, folder)
    config = write_toy_config(folder, f"model = dict(type='DoorModel', version={file.version})\n")
    runners, build_runner = [], cli_test.build_runner

    def keep_runner(*arguments):
        runners.append(build_runner(*arguments))
        return runners[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli_test, "build_runner", keep_runner)
        assert cli.main(["test", str(config), path, "--work-dir", str(folder / "work")]) == 0
    return runners[0].model.backbone


DOORS = [door for name, door in list(globals().items()) if name.startswith("by_")]


# One hook is behind all doors: every file goes through one of them, and two files through all.
WAYS = [(name, by_load_state_dict) for name in FILES]
WAYS += [(name, door) for name in ("mmdet", "huggingface-v2") for door in DOORS[1:]]


@pytest.mark.parametrize(
    ("name", "door"), [pytest.param(*way, id=f"{way[0]}-{way[1].__name__[3:]}") for way in WAYS]
)
def test_every_door_gives_the_same_weights(name, door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = FILES[name]
    weights = randomise(CLASSES[file.version](**SMALL)).state_dict()
    state = file.layout.from_own(weights)
    norms = {key for key in file.layout.list_lost(weights) if key.startswith("norm")}
    backbone = door(state, file, tmp_path)
    found = backbone.state_dict()
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        wanted = value if key not in norms else torch.full_like(value, key.endswith(".weight"))
        assert torch.equal(found[key], wanted), key
    report = backbone.load_report
    assert (report.layout, report.loaded) == (file.layout.name, len(weights) - len(norms))
