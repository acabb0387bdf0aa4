"""Recipes of the built-in data on its smallest preset, in one process."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from swin_mm.configs import find_config

NAMES = {"mmdet": "mask_rcnn_swin_mini_shapes", "mmseg": "upernet_swin_mini_shapes"}
TEXT = """
_base_ = '{base}'
data_root = '{data}/'
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
train_dataloader = dict(batch_size=2, **loader)
val_dataloader = test_dataloader = loader
"""
ANNOTATIONS = """
val_evaluator = test_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
"""


def write_tiny_recipe(scope: str, data: Path, path: Path, extra: str = "") -> Config:
    """Writes a config of a detector or segmentor on `data`, and makes its scope the default."""
    text = TEXT.format(base=find_config(NAMES[scope]), data=data)
    path.write_text(text + (ANNOTATIONS if scope == "mmdet" else "") + extra)
    init_default_scope(scope)
    return Config.fromfile(path)
