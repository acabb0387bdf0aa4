"""Configs elsewhere that build on those of swin_mm."""

import pytest
from mmengine.config import Config

import swin_mm
from swin_mm.configs import ConfigError


def test_a_config_elsewhere_finds_its_base(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        '_base_ = __import__("swin_mm").base_config("mask_rcnn_swin_t.py")\n'
        "model = dict(backbone=dict(drop_path_rate=0.3))\n"
    )
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.drop_path_rate == 0.3
    assert cfg.model.backbone.type == "swin_mm.SwinTransformer"


def test_bases_below_the_folder_of_configs():
    path = swin_mm.base_config("_base_/default_runtime.py")
    assert path.endswith("/configs/_base_/default_runtime.py")


def test_the_nearest_is_named():
    with pytest.raises(ConfigError, match="nearest: .*mask_rcnn_swin_t"):
        swin_mm.base_config("mask_rcn_swin_t.py")
