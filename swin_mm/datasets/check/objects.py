"""Tells which objects of a COCO file are learned, and why the others are not."""

from collections import Counter
from collections.abc import Iterator

from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples

# Reason to what holds for the objects, and what to do.
REASONS = {
    "crowd": (
        "are crowds (iscrowd=1)",
        "write iscrowd=0 where an annotation is one object (CVAT writes 1 for every brush mask)",
    ),
    "ignore": ("have ignore=1", "write ignore=0 or leave it out"),
    "outside": (
        "lie outside of their image or have a box without area",
        "write bbox as left, top, width and height in pixels",
    ),
    "area": (
        "have area=0 or less",
        "write the pixels of the mask, or width times height of the box, as area",
    ),
    "small": (
        "have a box narrower or lower than a pixel",
        "write bbox in pixels, not as parts of the image from 0 to 1",
    ),
    "mask": (
        "have no polygon of three points and no run lengths",
        "write masks, or use with_mask=False and a model without a mask head",
    ),
    "runs": (
        "have run lengths, which poly2mask=False leaves out",
        "use poly2mask=True or swin_mm.LoadAnnotations",
    ),
    "image": (
        "are in images below min_size of filter_cfg",
        "lower min_size in filter_cfg of the training data",
    ),
}


def has_mask(segmentation: object) -> bool:
    """Tells whether mmdet gets a mask from a segmentation: run lengths or a polygon it keeps."""
    if isinstance(segmentation, list):
        return any(
            isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            for polygon in segmentation
        )
    return isinstance(segmentation, dict) and bool(segmentation)


def why_left_out(annotation: dict, image: dict) -> str | None:
    """Returns why mmdet drops an annotation while it reads the file: a key of `REASONS`, or None.

    Args:
        annotation: One whose numbers are in order.
        image: Its image.

    Source:
        `CocoDataset.parse_data_info` of mmdet 3.3.
    """
    left, top, width, height = annotation["bbox"]
    seen_width = min(left + width, image["width"]) - max(left, 0)
    seen_height = min(top + height, image["height"]) - max(top, 0)
    if annotation.get("ignore"):
        return "ignore"
    if min(seen_width, seen_height) <= 0:
        return "outside"
    if annotation["area"] <= 0:
        return "area"
    return "small" if min(width, height) < 1 else None


def count_objects(coco: dict, source: Source, summary: SplitSummary) -> None:
    """Counts the objects that are learned, and the others by reason, into a summary.

    Args:
        coco: Annotations whose ids and numbers are in order.
        source: The data set that reads them.
        summary: Gets `learned` and `unlearned`.
    """
    images = {image["id"]: image for image in coco["images"]}
    loading = source.transform("LoadAnnotations") or {}
    with_mask = loading.get("with_mask")
    only_polygons = loading.get("type") != "swin_mm.LoadAnnotations" and not loading.get(
        "poly2mask", True
    )
    least = 0 if source.argument("test_mode") else _min_size(source)
    summary.learned, summary.unlearned = dict.fromkeys(summary.per_class, 0), Counter()
    for name, annotation in named_objects(coco):
        if name not in summary.learned:
            continue
        image = images[annotation["image_id"]]
        mask = annotation.get("segmentation")
        reason = why_left_out(annotation, image)
        if reason is None and annotation.get("iscrowd"):
            reason = "crowd"
        if reason is None and with_mask and not has_mask(mask):
            reason = "mask"
        if reason is None and with_mask and only_polygons and isinstance(mask, dict):
            reason = "runs"
        if reason is None and min(image["width"], image["height"]) < least:
            reason = "image"
        if reason is None:
            summary.learned[name] += 1
        else:
            summary.unlearned[reason] += 1
        summary.crowds += bool(annotation.get("iscrowd"))


def named_objects(coco: dict) -> Iterator[tuple[str, dict]]:
    """Yields the class name and the annotation of every object."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for annotation in coco["annotations"]:
        yield names[annotation["category_id"]], annotation


def _min_size(source: Source) -> float:
    return (source.argument("filter_cfg") or {}).get("min_size", 0)


def check_learned(summary: SplitSummary, where: str) -> list[str]:
    """Checks that something remains to be learned from the whole data of training.

    Args:
        summary: Of all data sets of the loader, after `count_objects`.
        where: The loader, for the message.

    Returns:
        Warnings: classes of which nothing is learned, and that most objects are crowds.

    Raises:
        DatasetError: No object is learned.
    """
    if summary.learned is None:
        return []
    if not summary.instances:
        raise DatasetError(
            f"{where} has no object of the config's classes: there is nothing to learn; name an "
            "annotation file that has annotations"
        )
    total, learned = summary.instances, sum(summary.learned.values())
    if not learned:
        reasons = [(count, *REASONS[key]) for key, count in summary.unlearned.most_common()]
        raise DatasetError(
            f"{where}: none of the {total} objects is learned: "
            + ", ".join(f"{count} {what}" for count, what, _ in reasons)
            + "; "
            + "; ".join(remedy for *_, remedy in reasons)
        )
    warnings = []
    if lacking := [name for name, count in summary.learned.items() if not count]:
        warnings.append(
            f"{where}: nothing is learned of {len(lacking)} of {len(summary.learned)} classes, "
            f"which have no object that remains: {examples(lacking)}"
        )
    if 2 * summary.crowds > total:
        warnings.append(
            f"{where}: {summary.crowds} of {total} objects are crowds, which are not learned: "
            f"{REASONS['crowd'][1]}"
        )
    return warnings


def check_scored(summary: SplitSummary, where: str) -> None:
    """Checks that validation data has an object to find.

    Raises:
        DatasetError: It has none, or all are crowds, which the COCO metric does not count.
    """
    if summary.learned is None or (summary.instances or 0) > summary.crowds:
        return
    if not summary.instances:
        raise DatasetError(
            f"{where} has no object of the config's classes: there is nothing to score; name an "
            "annotation file that has annotations"
        )
    raise DatasetError(
        f"{where}: all {summary.instances} objects are crowds (iscrowd=1), so there is nothing to "
        f"score: {REASONS['crowd'][1]}"
    )
