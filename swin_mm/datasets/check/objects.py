"""Tells which objects of a COCO file are learned and scored, and why the others are not."""

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


def is_polygon(polygon: object) -> bool:
    """Returns whether mmdet keeps a polygon: one of three points or more."""
    return isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0


def has_mask(segmentation: object) -> bool:
    """Returns whether mmdet gets a mask from a segmentation: run lengths or a polygon it keeps."""
    if isinstance(segmentation, list):
        return any(map(is_polygon, segmentation))
    return isinstance(segmentation, dict) and bool(segmentation)


def visible_size(annotation: dict, image: dict) -> tuple[float, float]:
    """Returns width and height of the part of a box that is in its image; below 0 if none is."""
    left, top, width, height = annotation["bbox"]
    return (
        min(left + width, image["width"]) - max(left, 0),
        min(top + height, image["height"]) - max(top, 0),
    )


def why_left_out(annotation: dict, image: dict) -> str | None:
    """Returns why mmdet drops an annotation while it reads the file: a key of `REASONS`, or None.

    Source:
        `CocoDataset.parse_data_info` of mmdet 3.3.
    """
    if annotation.get("ignore"):
        return "ignore"
    if min(visible_size(annotation, image)) <= 0:
        return "outside"
    if annotation["area"] <= 0:
        return "area"
    return "small" if min(annotation["bbox"][2:]) < 1 else None


def count_objects(coco: dict, source: Source, summary: SplitSummary) -> None:
    """Counts into a summary the objects that are learned, and the others by reason."""
    images = {image["id"]: image for image in coco["images"]}
    loading = source.transform("LoadAnnotations")
    is_ours = loading.get("type") == "swin_mm.LoadAnnotations"
    only_polygons = not is_ours and not loading.get("poly2mask", True)
    filters = {} if source.argument("test_mode") else source.argument("filter_cfg") or {}
    summary.learned = dict.fromkeys(summary.per_class, 0)

    def why_not(annotation: dict, image: dict) -> str | None:
        mask = annotation.get("segmentation")
        if reason := why_left_out(annotation, image):
            return reason
        if annotation.get("iscrowd"):
            return "crowd"
        if loading.get("with_mask") and not has_mask(mask):
            return "mask"
        if loading.get("with_mask") and only_polygons and isinstance(mask, dict):
            return "runs"
        return (
            "image" if min(image["width"], image["height"]) < filters.get("min_size", 0) else None
        )

    for name, annotation in named_objects(coco):
        if name in summary.learned:
            summary.crowds += bool(annotation.get("iscrowd"))
            if reason := why_not(annotation, images[annotation["image_id"]]):
                summary.unlearned[reason] += 1
            else:
                summary.learned[name] += 1


def named_objects(coco: dict) -> Iterator[tuple[str, dict]]:
    """Yields the class name and the annotation of every object."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    for annotation in coco["annotations"]:
        yield names[annotation["category_id"]], annotation


def check_occupied(summary: SplitSummary, where: str, purpose: str) -> None:
    """Checks that there are objects at all, to learn or to score."""
    if not summary.instances:
        raise DatasetError(
            f"{where} has no object of the config's classes: there is nothing to {purpose}; name "
            "an annotation file that has annotations"
        )


def check_learned(summary: SplitSummary, where: str) -> list[str]:
    """Checks that something remains to be learned from all data of training, of each class."""
    if summary.learned is None:
        return []
    check_occupied(summary, where, "learn")
    total = summary.instances or 0
    if not any(summary.learned.values()):
        reasons = [(count, *REASONS[key]) for key, count in summary.unlearned.most_common()]
        found = ", ".join(f"{count} {what}" for count, what, _ in reasons)
        remedies = "; ".join(remedy for *_, remedy in reasons)
        raise DatasetError(f"{where}: none of the {total} objects is learned: {found}; {remedies}")
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
    """Checks that validation data has an object to find; crowds do not count in the COCO metric."""
    if summary.learned is None:
        return
    check_occupied(summary, where, "score")
    if summary.instances == summary.crowds:
        raise DatasetError(
            f"{where}: all {summary.instances} objects are crowds (iscrowd=1), so there is nothing "
            f"to score: {REASONS['crowd'][1]}"
        )


def find_unscorable(coco: dict) -> dict[str, str]:
    """Returns what mmdet's COCO metric fails on or gets wrong, though training takes it.

    `"bbox"`, for every metric, and `"segm"`, for masks, with what is wrong, in words.
    """
    found = {}
    annotations = coco["annotations"]
    odd = [a["id"] for a in annotations if type(a["id"]) is not int or a["id"] <= 0]
    bare = [a["id"] for a in annotations if a.get("iscrowd") is None]
    polygons = ((a["id"], a.get("segmentation")) for a in annotations)
    flat = [i for i, s in polygons if isinstance(s, list) and not (s and all(map(is_polygon, s)))]
    if odd:
        found["bbox"] = (
            f"{len(odd)} annotation ids are not whole numbers from 1 on, such as {examples(odd)}: "
            "an object with the id 0 never counts as found, and text fails"
        )
    elif bare:
        found["bbox"] = f"{len(bare)} annotations have no iscrowd: {examples(bare)}"
    if flat:
        found["segm"] = (
            f"{len(flat)} masks have polygons of fewer than three points: those of annotations "
            f"{examples(flat)}"
        )
    return found
