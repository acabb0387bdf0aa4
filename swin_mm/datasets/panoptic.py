"""Panoptic files of COCO: maps of segments, and what each segment is."""

from collections.abc import Sequence

import numpy as np

from swin_mm.structures import Segments


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
    """COCO's `categories` of a panoptic file; colours are RGB, 0-255.

    `things` are the classes that are counted; None where that is not known.
    """
    categories = []
    for number, (name, colour) in enumerate(zip(classes, colours, strict=True), start=1):
        category = dict(id=number, name=name, color=list(map(int, colour)))
        if things is not None:
            category["isthing"] = int(name in things)
        categories.append(category)
    return categories
