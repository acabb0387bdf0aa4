"""The load hook behind every door, and what no door lets through."""

import copy
import logging

import pytest
import torch
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.runner import Runner, load_checkpoint
from swin_weights import SMALL, microsoft_state, randomise, relative_error
from torch import nn

from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.layouts import MICROSOFT, MMDET
from swin_mm.models import SwinTransformer


class Detector(BaseModule):
    """The least that a detector is to a loader: a backbone beside something else."""

    def __init__(self, **arguments):
        super().__init__()
        self.backbone = SwinTransformer(**(SMALL | arguments))
        self.neck = nn.Linear(2, 2)


def in_layout(layout):
    return layout.from_own(MICROSOFT.to_own(microsoft_state(None)).state)


def in_detector(state):
    neck = {"neck.weight": torch.zeros(2, 2), "neck.bias": torch.zeros(2)}
    return {"backbone." + key: value for key, value in state.items()} | neck


def save(state, tmp_path):
    path = str(tmp_path / "weights.pth")
    torch.save(state, path)
    return path


# Each door takes a backbone's state dict, and gives the backbone that took it.


def by_load_state_dict(state, tmp_path):
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict(state, strict=True)
    return backbone


def by_whole_file(state, tmp_path):
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict({"model": state, "optimizer": {"lr": 1}, "epoch": 3})
    return backbone


def by_detector(state, tmp_path):
    detector = Detector()
    detector.load_state_dict(in_detector(state), strict=True)
    return detector.backbone


def by_wrapped_detector(state, tmp_path):
    detector = nn.DataParallel(Detector())
    detector.load_state_dict({"module." + k: v for k, v in in_detector(state).items()})
    return detector.module.backbone


def by_assignment(state, tmp_path):
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict(state, assign=True)
    return backbone


def by_load_checkpoint(state, tmp_path):
    backbone = SwinTransformer(**SMALL)
    load_checkpoint(backbone, save({"model": state}, tmp_path), strict=True)
    return backbone


def by_load_checkpoint_of_detector(state, tmp_path):
    detector = Detector()
    path = save({"state_dict": in_detector(state), "meta": {}}, tmp_path)
    load_checkpoint(detector, path, strict=True)
    return detector.backbone


def by_load_checkpoint_of_ddp(state, tmp_path):
    detector = Detector()
    whole = {"module." + key: value for key, value in in_detector(state).items()}
    load_checkpoint(detector, save({"state_dict": whole}, tmp_path), strict=True)
    return detector.backbone


def by_init_cfg(state, tmp_path):
    cfg = dict(type="Pretrained", checkpoint=save({"model": state}, tmp_path))
    detector = Detector(init_cfg=cfg)
    detector.init_weights()
    return detector.backbone


def by_init_cfg_from_detector(state, tmp_path):
    cfg = dict(type="Pretrained", checkpoint=save({"state_dict": in_detector(state)}, tmp_path))
    backbone = SwinTransformer(**SMALL, init_cfg=cfg)
    backbone.init_weights()
    return backbone


def by_init_cfg_with_prefix(state, tmp_path):
    path = save({"state_dict": in_detector(state)}, tmp_path)
    cfg = dict(type="Pretrained", checkpoint=path, prefix="backbone.")
    backbone = SwinTransformer(**SMALL, init_cfg=cfg)
    backbone.init_weights()
    return backbone


def by_load_from(state, tmp_path):
    path = save({"state_dict": in_detector(state), "meta": {"epoch": 3}}, tmp_path)
    runner = Runner(model=Detector(), work_dir=str(tmp_path), load_from=path)
    runner.load_or_resume()
    return runner.model.backbone


def by_moving_average(state, tmp_path):
    average = ExponentialMovingAverage(Detector())
    whole = {"module." + key: value for key, value in in_detector(state).items()}
    average.load_state_dict(whole | {"steps": torch.tensor(0)})
    return average.module.backbone


def by_deep_copy(state, tmp_path):
    original = SwinTransformer(**SMALL)
    before = copy.deepcopy(original.state_dict())
    backbone = copy.deepcopy(original)
    backbone.load_state_dict(state)
    assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    assert original.load_report is None
    return backbone


DOORS = [door for name, door in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__[3:])
@pytest.mark.parametrize("layout", [MICROSOFT, MMDET], ids=lambda layout: layout.name)
def test_every_door_gives_the_same_weights(door, layout, tmp_path):
    wanted = in_layout(MICROSOFT)
    backbone = door(in_layout(layout), tmp_path)
    found = backbone.state_dict()
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(found[key], value), key
    report = backbone.load_report
    assert (report.layout, report.loaded, report.total) == (layout.name, len(wanted), len(wanted))


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__[3:])
def test_every_door_reads_a_classifier(door, tmp_path):
    source = microsoft_state()
    backbone = door(source, tmp_path)
    found = backbone.state_dict()
    norms = {f"norm{i}.{part}" for i in range(4) for part in ("weight", "bias")}
    assert found.keys() - norms == MICROSOFT.to_own(source).state.keys()
    assert all(torch.equal(found[key], source[key]) for key in found.keys() - norms)
    assert all((found[f"norm{i}.weight"] == 1).all() for i in range(4))
    assert backbone.load_report.initial == ("norm0", "norm1", "norm2", "norm3")
    assert backbone.load_report.loaded == len(found) - 8


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__[3:])
def test_no_door_takes_half_of_a_checkpoint(door, tmp_path):
    source = microsoft_state(None)
    del source["layers.2.blocks.1.mlp.fc1.bias"]
    with pytest.raises(
        CheckpointError, match=r"1 missing \(layers\.2\.blocks\.1\.mlp\.fc1\.bias\)"
    ):
        door(source, tmp_path)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.backbone.", "encoder."])
def test_wrappers_and_prefixes_are_looked_through(wrapper, prefix):
    wanted = in_layout(MICROSOFT)
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict({wrapper: {prefix + key: value for key, value in wanted.items()}})
    assert all(torch.equal(value, wanted[key]) for key, value in backbone.state_dict().items())


def test_the_weights_themselves_go_before_their_average():
    wanted, average = in_layout(MICROSOFT), microsoft_state(None, seed=7)
    backbone = SwinTransformer(**SMALL)
    backbone.load_state_dict({"state_dict_ema": average, "state_dict": wanted})
    assert torch.equal(backbone.patch_embed.proj.weight, wanted["patch_embed.proj.weight"])


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not-strict"])
@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({}, "no key begins with 'backbone'"),
        ({"neck.weight": torch.zeros(2, 2)}, "no key begins with 'backbone'"),
        (microsoft_state(), "no key begins with 'backbone'.*init_cfg"),
        (
            {"backbone.layer1.0.conv1.weight": torch.zeros(1)},
            r"no Swin in it, it looks like a ResNet \(layer1\.0\.conv1\.weight\)",
        ),
        (
            {"backbone.layers.0.blocks.0.attn.logit_scale": torch.zeros(1)},
            "it holds a Swin V2 in the Microsoft layout, but the model is a Swin V1",
        ),
    ],
    ids=["empty", "neck", "bare-backbone", "resnet", "swin-v2"],
)
def test_a_detector_refuses_what_has_no_backbone_for_it(state, wanted, strict):
    with pytest.raises(CheckpointError, match=wanted):
        Detector().load_state_dict(state, strict=strict)


def test_a_bare_backbone_is_not_ignored_by_mmengine(tmp_path):
    path = save({"state_dict": microsoft_state(None)}, tmp_path)
    with pytest.raises(CheckpointError, match="no key begins with 'backbone'"):
        load_checkpoint(Detector(), path, strict=False)


def test_errors_and_reports_name_the_file(tmp_path):
    path = save({"model": microsoft_state()}, tmp_path)
    cfg = dict(type="Pretrained", checkpoint=path)
    backbone = SwinTransformer(**SMALL, init_cfg=cfg)
    backbone.init_weights()
    assert backbone.load_report.file == path
    wider = SwinTransformer(**(SMALL | dict(embed_dims=16)), init_cfg=cfg)
    with pytest.raises(CheckpointError) as raised:
        wider.init_weights()
    assert str(raised.value).startswith(f"cannot load {path} into backbone: ")
    assert "embed_dims is 8 in the checkpoint and 16 in the model" in str(raised.value)


def test_each_load_is_one_line_of_the_log(caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            Detector().load_state_dict(in_detector(microsoft_state(None)))
    finally:
        logger.removeHandler(caplog.handler)
    lines = [record.message for record in caplog.records]
    assert lines == [
        "backbone: loaded 112/112 (Microsoft layout), dropped 7 x relative_position_index, "
        "3 x attn_mask"
    ]


def test_no_load_no_report():
    assert SwinTransformer(**SMALL).load_report is None


def test_resuming_leaves_parameters_and_optimizer_in_place():
    torch.manual_seed(0)
    backbone = randomise(SwinTransformer(**SMALL))
    parameters = list(backbone.parameters())
    optimizer = torch.optim.AdamW(parameters)
    sum(out.sum() for out in backbone(torch.randn(1, 3, 32, 32))).backward()
    optimizer.step()
    saved = copy.deepcopy((backbone.state_dict(), optimizer.state_dict()))
    backbone.load_state_dict(saved[0])
    assert all(a is b for a, b in zip(parameters, backbone.parameters(), strict=True))
    optimizer.load_state_dict(saved[1])
    assert len(optimizer.state) == len(parameters)


@pytest.mark.parametrize("package", ["mmdet", "mmseg"])
def test_a_window_of_12_is_resized_as_the_stock_class_does(package, tmp_path):
    if package == "mmdet":
        from mmdet.models.backbones.swin import SwinTransformer as Stock
    else:
        from mmseg.models.backbones.swin import SwinTransformer as Stock
    from mmengine.config import ConfigDict

    source = randomise(Stock(**SMALL)).state_dict()
    # The stock class would load the index of the smaller window too.
    weights = {f"backbone.{k}": v for k, v in source.items() if not k.endswith("position_index")}
    path = save({"state_dict": weights}, tmp_path)
    larger = SMALL | dict(window_size=12)
    # It loads in init_weights alone, and asks for attribute access.
    stock = Stock(**larger, init_cfg=ConfigDict(type="Pretrained", checkpoint=path))
    stock.init_weights()
    stock.train(False)
    backbone = SwinTransformer(**larger).eval()
    backbone.load_state_dict(source)
    assert len(backbone.load_report.resized) == 7
    image = torch.randn(1, 3, 97, 141, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for found, wanted in zip(backbone(image), stock(image), strict=True):
            assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("key", [3, b"a", ("a", "b")], ids=str)
def test_a_key_that_is_no_text_is_named(key):
    for state in ({"model": microsoft_state(), key: torch.zeros(1)}, {"model": {key: 1}}):
        with pytest.raises(CheckpointError, match=r"its key .* wanted a text"):
            SwinTransformer(**SMALL).load_state_dict(state)


@pytest.mark.parametrize("key", ["patch_embed.proj.weight", "layers.0.blocks.0.attn.qkv.weight"])
def test_weights_without_values_are_of_another_shape(key):
    state = microsoft_state()
    state[key] = state[key][..., :0]
    with pytest.raises(CheckpointError, match=rf"of another shape \({key}: .* 0\) in the check"):
        SwinTransformer(**SMALL).load_state_dict(state)
