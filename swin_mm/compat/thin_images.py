"""Handles images of one pixel on a side.

For mmcv 2.1, mmdet 3.3 and mmseg 1.2, which squeeze a label map of one row or column into one
dimension, and scale a side of few pixels to none.
"""

from functools import wraps
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import when_imported

LOADING = (
    "mmcv.transforms.loading",
    "mmdet.datasets.transforms.loading",
    "mmseg.datasets.transforms.loading",
)
RESIZING = "mmcv.image.geometric"
MARK = "handles_thin_images"


def install() -> None:
    """Patches the functions now, or when their modules are imported."""
    for name in LOADING:
        when_imported(name, _patch_loading)
    when_imported(RESIZING, _patch_resizing)


def explain() -> tuple[bool, str]:
    """Says whether thin images are handled, and why."""
    return True, "images of one pixel on a side cannot be loaded or resized"


def _patch_loading(module: ModuleType) -> None:
    load = module.LoadAnnotations._load_seg_map
    if hasattr(load, MARK):
        return

    @wraps(load)
    def load_seg_map(self: Any, results: dict) -> None:
        load(self, results)
        labels = results["gt_seg_map"]
        height, width = results.get("ori_shape", ())[:2] or (1, labels.size)
        if labels.ndim < 2 and labels.size == height * width:
            results["gt_seg_map"] = labels.reshape(height, width)

    setattr(load_seg_map, MARK, True)
    module.LoadAnnotations._load_seg_map = load_seg_map


def _patch_resizing(module: Any) -> None:
    scale_size = module._scale_size
    if hasattr(scale_size, MARK):
        return

    @wraps(scale_size)
    def scale_to_a_pixel(*args: Any) -> tuple[int, int]:
        width, height = scale_size(*args)
        return max(width, 1), max(height, 1)

    setattr(scale_to_a_pixel, MARK, True)
    module._scale_size = scale_to_a_pixel
