"""Checks instance masks of a COCO file: polygons and run lengths."""

from collections import Counter

import numpy as np

from swin_mm.datasets.check.objects import is_polygon, why_left_out
from swin_mm.datasets.check.summary import DatasetError

OUTSIDE = 2.0  # pixels by which masks may lie outside of their box: tools round differently
FURTHEST = 10**6  # pixels; pycocotools walks along every edge, and overflows far out


EMPTY = "have no pixel, though their box has"
APART = "lie apart from their box"
# The part of all masks from which on they are wrong, and what to do.
FATAL = {
    EMPTY: (1.0, "write the masks anew"),
    APART: (
        0.5,
        "write polygons in pixels of the image, not as parts of it from 0 to 1, x before y",
    ),
}


def check_masks(coco: dict, path: str) -> list[str]:
    """Checks the masks of all annotations; warns of those left out or that do not fit their box."""
    images = {image["id"]: image for image in coco["images"]}
    for image_id, image in images.items():
        if not (type(image["height"]) is type(image["width"]) is int):
            raise DatasetError(
                f"{path}: image {image_id} has a height or width that is not written as a whole "
                "number, which pycocotools needs for masks: write 640, not 640.0"
            )
    broken: dict[str, list[str]] = {}
    odd: Counter[str] = Counter()
    whole = 0
    for annotation in coco["annotations"]:
        mask = annotation.get("segmentation")
        image = images[annotation["image_id"]]
        if fault := _find_fault(mask, [image["height"], image["width"]]):
            broken.setdefault(fault[0], []).append(fault[1].format(id=annotation["id"]))
        elif not why_left_out(annotation, image):
            whole += 1
            odd.update(_find_oddity(mask, annotation["bbox"]))
    if broken:
        described = (
            texts[0] + f" ({len(texts)} annotations in all)" * (len(texts) > 1)
            for texts in broken.values()
        )
        raise DatasetError(f"{path}: {'; also, '.join(described)}")
    for text, (share, remedy) in FATAL.items():
        if odd[text] and odd[text] >= share * whole:
            raise DatasetError(f"{path}: {odd[text]} of {whole} masks {text}: {remedy}")
    return [f"{path}: {count} masks {text}" for text, count in odd.items()]


def _find_fault(mask: object, size: list[int]) -> tuple[str, str] | None:
    """Returns a kind of fault, and the message with `{id}` for the annotation's."""
    if not mask:
        return "absent", (
            "annotation {id} has no segmentation, but the pipeline loads masks; add masks, or use "
            "with_mask=False and a model without a mask head"
        )
    if isinstance(mask, list):
        if not all(isinstance(polygon, list) for polygon in mask):
            return "flat", (
                "the segmentation of annotation {id} is a flat list; it must be a list of "
                "polygons, [[x1, y1, x2, y2, ...], ...]"
            )
        numbers = (number for polygon in mask for number in polygon)
        if all(type(n) in (int, float) and abs(n) <= FURTHEST for n in numbers):
            return None
        return "numbers", (
            "a polygon of annotation {id} has something else than finite numbers of pixels; write "
            "the masks again"
        )
    if not isinstance(mask, dict) or not {"size", "counts"} <= mask.keys():
        return "kind", (
            "the segmentation of annotation {id} is neither a list of polygons nor run lengths "
            "with size and counts; write the masks again"
        )
    if mask["size"] != size or not all(type(side) is int for side in mask["size"]):
        return "size", (
            f"the mask of annotation {{id}} has size {mask['size']}, its image {size} (height, "
            "width); write the masks again"
        )
    counts = read_counts(mask["counts"])
    if counts is not None and (counts >= 0).all() and counts.sum() == size[0] * size[1]:
        return None
    total = "no run lengths" if counts is None else f"run lengths that add up to {counts.sum()}"
    return "runs", (
        f"the mask of annotation {{id}} has {total}, not the {size[0] * size[1]} pixels of its "
        "image; write the masks again"
    )


def _find_oddity(mask: list | dict, box: list[float]) -> list[str]:
    if isinstance(mask, dict):
        counts = read_counts(mask["counts"])
        empty = counts is not None and counts[1::2].sum() == 0
        return [EMPTY] if empty else []
    usable = list(filter(is_polygon, mask))
    if not usable:
        return ["have no polygon of three points, and are left out"]
    points = np.concatenate([np.asarray(polygon).reshape(-1, 2) for polygon in usable])
    start, end = np.array(box[:2]), np.array(box[:2]) + np.array(box[2:])
    if (points.max(axis=0) < start - OUTSIDE).any() or (points.min(axis=0) > end + OUTSIDE).any():
        return [APART]
    beyond = np.maximum(start - points.min(axis=0), points.max(axis=0) - end).max()
    return ["reach beyond their box"] if beyond > OUTSIDE else []


def read_counts(counts: object) -> np.ndarray | None:
    """Reads the run lengths of a mask: of background and object in turn.

    Args:
        counts: A list, or COCO's text.

    Returns:
        `(runs,)`, int64; None if it is neither.

    Source:
        The format as https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c writes it:
        numbers in groups of five bits, lowest first, from the character 48 on; the sixth bit says
        that more follow, the highest bit of the last is the sign; from the fourth number on they
        are differences from the one before the last. pycocotools trusts them: it would write beyond
        its memory.
    """
    if isinstance(counts, list):
        if not all(type(count) is int and abs(count) < 2**31 for count in counts):
            return None
        return np.array(counts, dtype=np.int64)
    if not isinstance(counts, str) or not counts.isascii():
        return None
    codes = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    lasts = np.flatnonzero((codes & 32) == 0)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    if (lasts - firsts).max() > 10:  # beyond 55 bits no length of a run goes
        return None
    places = np.arange(len(codes)) - np.repeat(firsts, lasts - firsts + 1)
    values = np.add.reduceat((codes & 31) << (5 * places), firsts)
    negative = (codes[lasts] & 16) > 0
    values[negative] -= 1 << (5 * (lasts - firsts + 1)[negative])
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values
