"""Resizes and turns masks of bool and int64 in uint8.

For mmdet 3.3 with OpenCV 5, which accepts neither, so that `Resize`, `Rotate`, `ShearX` and the
like fail on `BitmapMasks` of these types.
"""

from functools import wraps
from types import ModuleType
from typing import Any

from swin_mm.compat.module_finder import when_imported

TARGET = "mmdet.structures.mask.structures"
METHODS = ("rescale", "resize", "rotate", "shear", "translate")
MARK = "works_in_uint8"


def install() -> None:
    """Patches the methods now, or when their module is imported."""
    when_imported(TARGET, _patch)


def explain() -> tuple[bool, str]:
    """Says whether masks of other types are converted, and why."""
    return True, "OpenCV 5 resizes and turns no masks of bool and int64"


def _patch(module: ModuleType) -> None:
    for name in METHODS:
        method = getattr(module.BitmapMasks, name)
        if not hasattr(method, MARK):
            setattr(module.BitmapMasks, name, _in_uint8(method))


def _in_uint8(method: Any) -> Any:
    @wraps(method)
    def convert_and_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = self.masks.dtype
        if dtype.kind not in "biu" or dtype == "uint8":
            return method(self, *args, **kwargs)
        masks = type(self)(self.masks.astype("uint8"), self.height, self.width)
        changed = method(masks, *args, **kwargs)
        changed.masks = changed.masks.astype(dtype)
        return changed

    setattr(convert_and_call, MARK, True)
    return convert_and_call
