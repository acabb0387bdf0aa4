"""Panoptic predictions: segments, each of a thing or of stuff, and their files as of COCO."""

from collections.abc import Sequence

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from mmengine.structures import PixelData

from swin_mm.structures import Segments


def read_segments(found: PixelData, num_classes: int) -> Segments:
    """Reads what mmdet's panoptic heads predict.

    Args:
        found: `pred_panoptic_seg`: `sem_seg` `(1, H, W)`, of each pixel its class plus 1000 times
            the number of the object, and class `num_classes` or `ignore_index` where there is none.
        num_classes: Number of classes.

    Returns:
        The segments, numbered in the order of mmdet's numbers.
    """
    pixels = found.sem_seg.squeeze(0).cpu().numpy()  # (H, W)
    numbers, places = np.unique(pixels, return_inverse=True)
    labels = numbers % INSTANCE_OFFSET
    is_segment = (labels < num_classes) & (labels != found.get("ignore_index", num_classes))
    new = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    return Segments(new[places].reshape(pixels.shape), labels[is_segment].astype(np.int64))


def to_png(segments: Segments) -> np.ndarray:
    """Ids as colours, `(H, W, 3)`, uint8, RGB: red + 256 * green + 256^2 * blue.

    Source:
        https://github.com/cocodataset/panopticapi/blob/master/panopticapi/utils.py
    """
    parts = [segments.ids >> shift & 255 for shift in (0, 8, 16)]
    return np.stack(parts, axis=-1).astype(np.uint8)


def to_segments_info(segments: Segments) -> list[dict]:
    """COCO's `segments_info`; classes are numbered from 1."""
    entries = []
    for number, label in enumerate(segments.labels.tolist(), start=1):
        mask = segments.ids == number
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
        area = int(mask.sum())
        entries.append(dict(id=number, category_id=label + 1, area=area, bbox=box, iscrowd=0))
    return entries


def to_categories(
    classes: Sequence[str], colours: Sequence[Sequence[int]], things: Sequence[str] | None
) -> list[dict]:
    """COCO's `categories` of a panoptic file.

    Args:
        classes: Names of all.
        colours: RGB, 0-255, of each.
        things: Names of those that are counted; None where that is not known.
    """
    categories = []
    for number, (name, colour) in enumerate(zip(classes, colours, strict=True), start=1):
        category = dict(id=number, name=name, color=list(map(int, colour)))
        if things is not None:
            category["isthing"] = int(name in things)
        categories.append(category)
    return categories
