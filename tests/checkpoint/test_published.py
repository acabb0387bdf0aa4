"""Published weights by name: what is known, and where it comes from."""

from pathlib import Path

import pytest
import torch
from zoo_server import publish_narrow, serve

import swin_mm
from swin_mm.checkpoint import CheckpointError
from swin_mm.checkpoint.published import RECIPES, find_weights, list_weights, resolve_weights
from swin_mm.cli.main import run_command
from swin_mm.configs import ConfigError, find_config, packaged_configs
from swin_mm.inference import model as module

UPERNET = "upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K_20210531_112542"


def test_names_addresses_and_results_are_the_zoos():
    """The values stand on the pages of mmdet's, mmseg's and Microsoft's zoos."""
    zoo = find_weights("mask_rcnn_swin_t_3x")
    assert zoo.name == "mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco"
    assert zoo.metrics == {"box AP": 46.0, "mask AP": 41.7}
    assert zoo.address.endswith("_20210908_165006-90a4008c.pth")
    upernet = find_weights("upernet_swin_t")
    assert upernet.address.endswith(f"/{UPERNET}-e380ad3e.pth")
    assert (upernet.dataset, upernet.metrics["mIoU"]) == ("ADE20K", 44.41)
    cascade = find_weights("cascade_mask_rcnn_swin_b_3x")
    assert cascade.address == (
        "https://github.com/SwinTransformer/storage/releases/download/v1.0.2/"
        "cascade_mask_rcnn_swin_base_patch4_window7.pth"
    )


def test_every_entry_is_whole_and_every_recipe_exists():
    known = list_weights()
    assert len({weights.name for weights in known}) == len(known) > 50
    for weights in known:
        assert weights.address.startswith("https://") and weights.metrics
        assert find_config(weights.config).is_file()
    recipes = {weights.recipe for weights in known} - {None}
    assert set(RECIPES.values()) <= recipes <= set(packaged_configs())


def test_paths_addresses_and_unknown_names(tmp_path):
    assert resolve_weights("a/b.pth") == "a/b.pth"
    assert resolve_weights("https://a.b/c") == "https://a.b/c"
    assert resolve_weights("work_dirs/run/epoch_7") == "work_dirs/run/epoch_7"  # of `--shard`
    with pytest.raises(CheckpointError, match="nearest: mask_rcnn_swin_t_3x"):
        resolve_weights("mask_rcnn_swin_t_3")
    with pytest.raises(CheckpointError, match="no published weights .* retinanet_swin_t"):
        find_weights("retinanet_swin_t")


def test_the_command_lists_them(capsys):
    assert run_command("weights", ["*upernet_swin_t*"]) == 0
    output = capsys.readouterr().out
    assert "upernet_swin_t" in output and "44.41" in output and "dino" not in output
    assert run_command("weights", ["nothing*"]) == 1
    capsys.readouterr()
    assert run_command("weights", []) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mask2former_swin-b-in22k-384x384-pre_8xb2-90k_cityscapes-512x1024" in lines
    first = lines.index("mask_rcnn_swin_tiny_patch4_window7")
    assert lines[first + 1].endswith("box AP 46, mask AP 41.6")
    assert lines[first + 2].strip() == "fits mask_rcnn_swin_t_3x"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of a folder, and a folder of its own for what is downloaded."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with serve(folder) as address:
        yield folder, address


def test_a_model_by_its_name(server, monkeypatch, tmp_path):
    """A recipe's weights, in the zoo's layout, from a server that has them under the zoo's name."""
    weights, stock, _ = publish_narrow(*server, tmp_path / "narrow.py")
    monkeypatch.setattr(module, "find_weights", lambda name: weights)
    model = swin_mm.load("mask_rcnn_swin_t_3x", device="cpu")
    image = torch.rand(1, 3, 64, 96)
    expected = stock.backbone(image)
    for ours, theirs in zip(model.module.backbone(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(model.classes) == 80


def test_a_file_that_arrives_damaged_is_not_kept(server, tmp_path):
    from mmengine.runner import CheckpointLoader

    folder, address = server
    (folder / "a-0123abcd.pth").write_bytes(b"not what was published")
    with pytest.raises(CheckpointError, match="arrived damaged"):
        CheckpointLoader.load_checkpoint(f"{address}/a-0123abcd.pth")
    assert not list(Path(tmp_path, "hub").rglob("*.pth"))


def test_weights_and_resume_do_not_go_together():
    with pytest.raises(ConfigError, match="--weights starts a new run"):
        from swin_mm.cli.train import main

        main(["mask_rcnn_swin_t_3x", "--weights", "mask_rcnn_swin_t_3x", "--resume"])
