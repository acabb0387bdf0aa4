"""Configs that start from published weights: which recipe, what is loaded, what is left out."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from own_data import write_coco, write_maps
from zoo_server import NARROW, serve

from swin_mm.checkpoint import CheckpointError, published
from swin_mm.cli import init_config
from swin_mm.cli.main import run_command
from swin_mm.configs import find_config
from swin_mm.init_config import InitConfigError

WIDTHS = [8, 16, 32, 64]
MASK_RCNN = dict(backbone=NARROW, neck=dict(in_channels=WIDTHS))
UPERNET = dict(
    backbone=NARROW, decode_head=dict(in_channels=WIDTHS), auxiliary_head=dict(in_channels=32)
)
DETECTION = ["--coco", "train.json"]
SEGMENTATION = ["--images", "img", "--masks", "lab", "--classes", "a", "b", "c"]


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, images=6)
    write_maps(tmp_path, images=6)


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Gives published weights the address of a local server, which has `content` there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as server:

        def publish_content(content):
            torch.save(content, tmp_path / "served" / "zoo.pth")
            address = f"{server}/zoo.pth"
            known = [w._replace(address=address) for w in published.list_weights()]
            monkeypatch.setattr(published, "list_weights", lambda: known)
            return address

        yield publish_content


@pytest.mark.parametrize(
    ("name", "scope", "change", "command", "anew"),
    [
        (
            "mask_rcnn_swin_t_3x",
            "mmdet",
            MASK_RCNN,
            DETECTION,
            ("roi_head.bbox_head.fc_", "roi_head.mask_head.conv_logits"),
        ),
        (
            "upernet_swin_t",
            "mmseg",
            UPERNET,
            SEGMENTATION,
            ("decode_head.conv_seg", "auxiliary_head.conv_seg"),
        ),
    ],
)
def test_all_is_loaded_but_what_is_of_other_classes(
    tmp_path, publish, capsys, name, scope, change, command, anew
):
    recipe = Config.fromfile(find_config(name))
    recipe.merge_from_dict(dict(model=change))
    backbone = dict(type=f"{scope}.SwinTransformer", out_indices=(0, 1, 2, 3), **NARROW)
    with DefaultScope.overwrite_default_scope(scope):
        stock = MODELS.build({**recipe.model, "backbone": backbone}).state_dict()
    address = publish(dict(state_dict=stock, meta={}))
    init_config.main([*command, "--weights", name])
    said = capsys.readouterr().out
    assert f"training starts from the weights {name} (published: " in said
    heads = ", ".join(dict.fromkeys(part.rpartition(".")[0] for part in anew))
    assert f"; layers for other classes are left out and learned anew: {heads}\n" in said
    cfg = Config.fromfile("my_config.py")
    assert cfg.load_from == address and cfg.model.backbone.init_cfg is None
    cfg.merge_from_dict(dict(model=change, work_dir=str(tmp_path / "work")))
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    loaded = runner.model.state_dict()
    for key in [key for key in stock if not key.startswith("backbone.")]:
        same = torch.equal(loaded[key], stock[key]) if loaded[key].shape == stock[key].shape else 0
        assert same != key.startswith(anew), key
    said = capsys.readouterr().out
    assert all(f"size mismatch for {part}" in said for part in anew)
    patches = "backbone.patch_embed.proj{}.weight"
    theirs = stock.get(patches.format("ection"), stock.get(patches.format("")))
    assert torch.equal(loaded[patches.format("")], theirs)


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        ([*DETECTION, "--weights", "cascade_mask_rcnn_swin_s_3x"], "cascade_mask_rcnn_swin_s_3x"),
        (
            [*DETECTION, "--weights", "cascade_mask_rcnn_swin_s_3x", "--backbone", "s_3x"],
            "mask_rcnn_swin_s_3x",
        ),
        ([*SEGMENTATION, "--weights", "upernet_swin_b_22k"], "upernet_swin_b_22k"),
        ([*DETECTION, "--weights", "own.pth", "--backbone", "small"], "mask_rcnn_swin_s_3x"),
    ],
)
def test_a_name_chooses_the_recipe_unless_the_user_does(tmp_path, command, recipe):
    torch.save({}, tmp_path / "own.pth")
    init_config.main(command)
    assert f'base_config("{recipe}.py")' in (tmp_path / "my_config.py").read_text()
    weights = command[command.index("--weights") + 1]
    expected = str(tmp_path / "own.pth")
    if weights != "own.pth":
        expected = published.find_weights(weights).address
    assert Config.fromfile("my_config.py").load_from == expected


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            [*DETECTION, "--weights", "upernet_swin_t"],
            "are of upernet; for this data",
        ),
        (
            [*SEGMENTATION, "--weights", "knet_swin_t"],
            "are of knet; for this data",
        ),
        ([*DETECTION, "--weights", "mask-rcnn_swin-t-p4-w7_fpn_1x_coco"], "fit no recipe"),
        (
            [*DETECTION, "--weights", "mask_rcnn_swin_s_3x", "--backbone", "tiny"],
            "are of mask_rcnn_swin_s_3x, whose backbone is not that of mask_rcnn_swin_t: leave",
        ),
        ([*DETECTION, "--weights", "mask_rcnn_swin_t_3x", "--preset", "small"], "not the small"),
        ([*DETECTION, "--weights", "mask_rcnn_swin_t_4x"], "nearest: mask_rcnn_swin_t_3x"),
        ([*DETECTION, "--weights", "none.pth"], "none.pth: there is no such file"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, capsys, command, message):
    with pytest.raises((InitConfigError, CheckpointError), match=message):
        init_config.main(command)
    assert not (tmp_path / "my_config.py").exists()
    assert run_command("init-config", command) == 1
