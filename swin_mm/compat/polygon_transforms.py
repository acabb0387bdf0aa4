"""Draws polygons before transforms of mmdet that only know bitmaps.

For mmdet 3.3: with `PolygonMasks`, which `swin_mm.LoadAnnotations` leaves, `Expand` raises
`NotImplementedError`, `CopyPaste`, `RandomErasing` and `Albu` fail on the missing array, and
`Rotate` turns polygons the wrong way, about the corner of the image.
"""

from functools import wraps
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import when_imported

TRANSFORMS = {
    "mmdet.datasets.transforms.geometric": ("Rotate",),
    "mmdet.datasets.transforms.transforms": (
        *("Albu", "CachedMosaic", "CopyPaste", "Expand", "RandomErasing"),
    ),
}
MARK = "draws_polygons"


def install() -> None:
    """Patches the transforms now, or when their module is imported."""
    for target in TRANSFORMS:
        when_imported(target, _patch)


def explain() -> tuple[bool, str]:
    """Says whether polygons are drawn, and why."""
    return True, "some transforms of mmdet fail on polygons, or turn them wrongly"


def _patch(module: ModuleType) -> None:
    for name in TRANSFORMS[module.__name__]:
        transform = getattr(module, name).transform
        if not hasattr(transform, MARK):
            getattr(module, name).transform = _drawing_first(transform)


def _drawing_first(transform: Any) -> Any:
    @wraps(transform)
    def draw_and_transform(self: Any, results: dict) -> dict | None:
        from mmdet.structures.mask import PolygonMasks

        for image in (results, *results.get("mix_results", ())):
            if isinstance(image.get("gt_masks"), PolygonMasks):
                image["gt_masks"] = image["gt_masks"].to_bitmap()
                # Of bool, OpenCV 5 resizes and turns nothing.
                image["gt_masks"].masks = image["gt_masks"].masks.astype("uint8")
        return transform(self, results)

    setattr(draw_and_transform, MARK, True)
    return draw_and_transform
