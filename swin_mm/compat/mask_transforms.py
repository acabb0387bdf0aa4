"""Patches transforms and masks of mmcv 2.1, mmdet 3.3 and mmseg 1.2.

- With `PolygonMasks`, which `swin_mm.LoadAnnotations` leaves, mmdet's `Expand` raises
  `NotImplementedError`, `CopyPaste`, `RandomErasing` and `Albu` fail on the missing array,
  `CachedMixUp` cannot join polygons of one image and bitmaps of another, and
  `Rotate` turns polygons the wrong way, about the corner of the image. They get bitmaps.
- OpenCV takes no arrays of bool, and OpenCV 5 none of int64, so that `Resize`, `Pad`, `Rotate` and
  the like fail on `BitmapMasks` of these types. They are changed as uint8.
- A label map of one row or column is squeezed into one dimension, and a side of few pixels is
  scaled to none.
"""

from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import Patch, wrap_once

TRANSFORMS = {
    "mmdet.datasets.transforms.geometric": ("Rotate",),
    "mmdet.datasets.transforms.transforms": (
        *("Albu", "CachedMixUp", "CachedMosaic", "CopyPaste", "Expand", "RandomErasing"),
    ),
}
METHODS = ("rescale", "resize", "pad", "rotate", "shear", "translate")
LOADING = (
    "mmcv.transforms.loading",
    "mmdet.datasets.transforms.loading",
    "mmseg.datasets.transforms.loading",
)


def _patch_transforms(module: ModuleType) -> None:
    for name in TRANSFORMS[module.__name__]:
        wrap_once(getattr(module, name), "transform", _draw_and_transform)


def _draw_and_transform(transform: Any, self: Any, results: dict) -> dict | None:
    from mmdet.structures.mask import PolygonMasks

    for image in (results, *results.get("mix_results", ())):
        if isinstance(image.get("gt_masks"), PolygonMasks):
            image["gt_masks"] = image["gt_masks"].to_bitmap()
            image["gt_masks"].masks = image["gt_masks"].masks.astype("uint8")
    return transform(self, results)


def _patch_masks(module: ModuleType) -> None:
    for name in METHODS:
        wrap_once(module.BitmapMasks, name, _change_as_uint8)


def _change_as_uint8(method: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    dtype = self.masks.dtype
    if dtype.kind not in "biu" or dtype == "uint8":
        return method(self, *args, **kwargs)
    masks = type(self)(self.masks.astype("uint8"), self.height, self.width)
    changed = method(masks, *args, **kwargs)
    changed.masks = changed.masks.astype(dtype)
    return changed


def _patch_loading(module: ModuleType) -> None:
    wrap_once(module.LoadAnnotations, "_load_seg_map", _load_with_both_sides)


def _load_with_both_sides(load: Any, self: Any, results: dict) -> None:
    load(self, results)
    labels = results["gt_seg_map"]
    height, width = results.get("ori_shape", ())[:2] or (1, labels.size)
    if labels.ndim < 2 and labels.size == height * width:
        results["gt_seg_map"] = labels.reshape(height, width)


def _patch_resizing(module: ModuleType) -> None:
    wrap_once(module, "_scale_size", _scale_to_a_pixel)


def _scale_to_a_pixel(scale_size: Any, *args: Any) -> tuple[int, int]:
    width, height = scale_size(*args)
    return max(width, 1), max(height, 1)


PATCHES = (
    Patch(
        "polygon_transforms",
        "some transforms of mmdet fail on polygons, or turn them wrongly",
        dict.fromkeys(TRANSFORMS, _patch_transforms),
    ),
    Patch(
        "bitmap_masks",
        "OpenCV resizes, pads and turns no masks of bool and int64",
        {"mmdet.structures.mask.structures": _patch_masks},
    ),
    Patch(
        "thin_images",
        "images of one pixel on a side cannot be loaded or resized",
        {**dict.fromkeys(LOADING, _patch_loading), "mmcv.image.geometric": _patch_resizing},
    ),
)
