"""Says which transform of a pipeline failed, on which image, and what it was given.

For mmcv 2.1, mmdet 3.3 and mmseg 1.2, whose transforms fail with a bare `AssertionError` or
`KeyError` where an earlier transform or a wrapper of the data set is missing. Mosaic and MixUp of
mmdet return the boxes of all images with the masks of the first, and `RandomShift` shifts no masks:
this is an error here.
"""

from pathlib import Path
from traceback import extract_tb
from typing import Any

from swin_mm.compat.module_finder import Patch

PACKAGE = str(Path(__file__).parents[1])
# Annotations that transforms of mmdet leave as they were while they move or mix images.
UNCHANGED = {
    "CachedMixUp": ("gt_seg_map",),
    "CachedMosaic": ("gt_seg_map",),
    "CopyPaste": ("gt_seg_map",),
    "MixUp": ("gt_masks", "gt_seg_map"),
    "Mosaic": ("gt_masks", "gt_seg_map"),
    "RandomAffine": ("gt_seg_map",),
    "RandomShift": ("gt_masks", "gt_seg_map"),
}
OPTIONS = {"gt_masks": "with_mask", "gt_seg_map": "with_seg"}
PER_OBJECT = ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "gt_masks")


class TransformError(ValueError):
    """A transform that failed; the message says which one, on which image, and why."""


def call_transform(self: Any, results: dict) -> Any:
    """Calls a transform; replaces `BaseTransform.__call__`.

    Raises:
        TransformError: The transform failed, or boxes and masks of its result do not match. What
            a user can read already passes: `OSError`, and `ValueError` of this package.
    """
    if isinstance(results, dict):
        _check_supported(self, results)
    try:
        after = self.transform(results)
    except Exception as error:
        if isinstance(error, OSError) or _is_own(error):
            raise
        raise TransformError(_describe(self, results, error)) from error
    if isinstance(after, dict):
        counts = {key: len(after[key]) for key in PER_OBJECT if after.get(key) is not None}
        if len(set(counts.values())) > 1:
            raise TransformError(
                f"{type(self).__name__}{_image(results)} must keep as many of each: {counts}; it "
                "does not support all of them"
            )
    return after


def _check_supported(transform: Any, results: dict) -> None:
    kind = type(transform)
    keys = UNCHANGED.get(kind.__name__, ()) if kind.__module__.startswith("mmdet.") else ()
    for key in keys:
        if key in results:
            cached = f"Cached{kind.__name__}"
            other = f"use {cached}" if key not in UNCHANGED.get(cached, key) else "remove it"
            raise TransformError(
                f"{kind.__name__} leaves {key} as it is, so that it no longer fits the image: "
                f"{other}, or set {OPTIONS[key]} of LoadAnnotations to False"
            )


def _is_own(error: Exception) -> bool:
    last = extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, ValueError) and last.startswith(PACKAGE)


def _describe(transform: Any, results: Any, error: Exception) -> str:
    """Describes what a transform raised, where, and what it was given."""
    where = f"{type(transform).__name__}{_image(results)}"
    text = _text(error)
    if isinstance(results, dict) and "inputs" in results:
        return f"{where} got an image that is packed: the packing transform must come last"
    frame = extract_tb(error.__traceback__)[-1]
    given = f", given {', '.join(results)}" if isinstance(results, dict) else ""
    return f"{where}: {text} ({frame.filename}:{frame.lineno}){given}"


def _text(error: Exception) -> str:
    """The type and message of an error; for an `assert` without a message, what it asserts."""
    message = str(error) or extract_tb(error.__traceback__)[-1].line or ""
    return f"{type(error).__name__}: {' '.join(message.split())}"


def _image(results: Any) -> str:
    path = results.get("img_path") if isinstance(results, dict) else None
    return f" on {path}" if path else ""


PATCH = Patch(
    "transform_errors",
    "transforms fail without naming what they miss",
    {"mmcv.transforms.base": lambda m: setattr(m.BaseTransform, "__call__", call_transform)},
)
