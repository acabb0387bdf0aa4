"""Checks a COCO annotation file against the config and the images."""

import difflib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

from swin_mm.datasets.check.images import (
    DECODED,
    check_present,
    check_whole,
    image_size,
    spread,
)
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples

KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}


def check_coco(source: Source, seconds: float, labelled: bool = True) -> SplitSummary:
    """Checks a data set that mmdet reads as `CocoDataset` does.

    Args:
        source: The data set.
        seconds: Time limit for looking into images.
        labelled: Whether annotations are required; a test set may come without.

    Raises:
        DatasetError: Anything that training or testing would fail on, or silently get wrong.
    """
    path = source.path(source.argument("ann_file") or "")
    if source.is_remote():
        return SplitSummary(warnings=[f"{source.where}: files on a server are not checked"])
    coco = read_coco(path, source.where, labelled)
    warnings = _check_categories(coco, source, path)
    _check_references(coco, path)
    warnings += _check_boxes(coco, path)
    _check_masks(coco, source, path)

    folder = source.prefix("img")
    files = [os.path.join(folder, image["file_name"]) for image in coco["images"]]
    check_present(files, source.where)
    time_warning = check_whole(files, source.where, seconds)
    warnings += [time_warning] if time_warning else []
    warnings += _compare_sizes(coco["images"], files, path)
    return _summarise(coco, source.classes(), warnings)


def read_coco(path: str, where: str, labelled: bool = True) -> dict:
    """Reads an annotation file and checks its form.

    Args:
        path: The file.
        where: Config path of the data set, for the message.
        labelled: Whether annotations are required.

    Raises:
        DatasetError: It is absent, not JSON, or not COCO.
    """
    option = f"--cfg-options {where}.ann_file=FILE (relative to data_root)"
    try:
        coco = json.loads(Path(path).read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DatasetError(
            f"{where}: there is no annotation file {path or '(none named)'}"
            f"{_first_missing_folder(path)}; put the data there, or give {option}"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{where}: {path} is not JSON ({error}); fetch or write it again, it may be cut short"
        ) from None
    remedy = "it must be a COCO file for object detection: " + ", ".join(KEYS)
    if isinstance(coco, list):
        raise DatasetError(f"{path} is a list, as COCO results are, not annotations: {remedy}")
    if not isinstance(coco, dict):
        raise DatasetError(f"{path} is JSON but not COCO: {remedy}")
    if not labelled:
        coco.setdefault("annotations", [])
    for section, keys in KEYS.items():
        if not isinstance(coco.get(section), list):
            raise DatasetError(f"{path} has no list {section!r}: {remedy}")
        for index, item in enumerate(coco[section]):
            if not (isinstance(item, dict) and keys <= item.keys()):
                lacking = sorted(keys - set(item if isinstance(item, dict) else ()))
                raise DatasetError(
                    f"{path}: {section}[{index}] lacks {', '.join(lacking)}; every one of "
                    f"{section} needs {', '.join(sorted(keys))}"
                )
    if not coco["images"]:
        raise DatasetError(f"{path} lists no images; write it again, or name another file")
    return coco


def _first_missing_folder(path: str) -> str:
    missing = [str(p) for p in Path(path).parents if not p.exists()]
    return f" (not even the folder {missing[-1]})" if missing else ""


def _check_categories(coco: dict, source: Source, path: str) -> list[str]:
    """Compares names: mmdet numbers classes in the file's order and skips what it does not find."""
    wanted = source.classes()
    names = [category["name"] for category in coco["categories"]]
    lacking = [name for name in wanted if name not in names]
    setting = f"{source.where}.metainfo.classes"
    if not wanted:
        raise DatasetError(f"{setting} is not set: write the names, {tuple(names)}")
    if lacking:
        nearest = [
            f"{name!r} (is it {match[0]!r}?)" if match else repr(name)
            for name in lacking
            for match in [difflib.get_close_matches(name, names, n=1)]
        ]
        raise DatasetError(
            f"the config's classes {examples(wanted)} are not those of {path}, {examples(names)}: "
            f"it lacks {examples(nearest)}; set {setting} of every data loader to the file's names"
        )
    ordered = [name for name in names if name in wanted]
    if ordered != list(wanted):
        raise DatasetError(
            f"{setting} lists {examples(wanted)} but {path} has {examples(ordered)}, and mmdet "
            f"numbers classes in the file's order: write them so, {tuple(ordered)}"
        )
    ignored = [name for name in names if name not in wanted]
    return [f"{path}: classes not in the config are left out: {examples(ignored)}"] * bool(ignored)


def _check_references(coco: dict, path: str) -> None:
    for section in ("images", "annotations", "categories"):
        ids = [item["id"] for item in coco[section]]
        if len(set(ids)) < len(ids):
            seen: set = set()
            twice = [i for i in ids if i in seen or seen.add(i)]
            raise DatasetError(
                f"{path}: {len(twice)} ids of {section} are used twice: {examples(twice)}; "
                "number them anew"
            )
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        known = {item["id"] for item in coco[section]}
        dangling = [a for a in coco["annotations"] if a[key] not in known]
        if dangling:
            pairs = (f"annotation {a['id']} has {key}={a[key]!r}" for a in dangling)
            raise DatasetError(
                f"{path}: {len(dangling)} annotations name {section} that the file does not list: "
                f"{examples(pairs)}; add them to {section} or take the annotations out"
            )


def _check_boxes(coco: dict, path: str) -> list[str]:
    """Refuses what are not numbers; counts the boxes that mmdet clips or leaves out."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for image_id, size in sizes.items():
        if not (_are_numbers(size) and min(size) > 0):
            raise DatasetError(
                f"{path}: image {image_id} has width and height {size}; both must be pixels"
            )
    clipped = skipped = 0
    for annotation in coco["annotations"]:
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and _are_numbers(box)):
            raise DatasetError(
                f"{path}: annotation {annotation['id']} has bbox={box}; it must be four numbers, "
                "left, top, width and height in pixels"
            )
        if not _are_numbers([annotation["area"]]):
            raise DatasetError(
                f"{path}: annotation {annotation['id']} has area={annotation['area']!r}; it must "
                "be the number of pixels of the object"
            )
        left, top, width, height = box
        full_width, full_height = sizes[annotation["image_id"]]
        seen_width = min(left + width, full_width) - max(left, 0)
        seen_height = min(top + height, full_height) - max(top, 0)
        if min(seen_width, seen_height) <= 0 or min(width, height) < 1 or annotation["area"] <= 0:
            skipped += 1
        # A pixel's slack: many tools write the last pixel's index where COCO has its far edge.
        elif seen_width < width - 1 or seen_height < height - 1:
            clipped += 1
    warnings = []
    if skipped:
        warnings.append(f"{path}: {skipped} boxes are empty or outside, and are left out")
    if clipped:
        warnings.append(f"{path}: {clipped} boxes reach beyond their image, and are clipped")
    return warnings


def _are_numbers(values: Sequence) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _check_masks(coco: dict, source: Source, path: str) -> None:
    loading = source.transform("LoadAnnotations") or {}
    if not loading.get("with_mask"):
        return
    sizes = {image["id"]: [image["height"], image["width"]] for image in coco["images"]}
    for annotation in coco["annotations"]:
        mask = annotation.get("segmentation")
        if not mask:
            raise DatasetError(
                f"{path}: annotation {annotation['id']} has no segmentation, but the pipeline "
                "loads masks; add masks, or use with_mask=False and a model without a mask head"
            )
        if isinstance(mask, list) and not all(isinstance(polygon, list) for polygon in mask):
            raise DatasetError(
                f"{path}: the segmentation of annotation {annotation['id']} is a flat list; it "
                "must be a list of polygons, [[x1, y1, x2, y2, ...], ...]"
            )
        if isinstance(mask, dict) and mask.get("size") != sizes[annotation["image_id"]]:
            raise DatasetError(
                f"{path}: the mask of annotation {annotation['id']} has size {mask.get('size')}, "
                f"its image {sizes[annotation['image_id']]} (height, width); write the masks anew"
            )


def _compare_sizes(images: list[dict], files: list[str], path: str) -> list[str]:
    """Compares the listed sizes of some images with those in the files."""
    chosen = spread(len(files))[:DECODED]
    different = [
        files[i]
        for i in chosen
        if image_size(files[i]) != (images[i]["height"], images[i]["width"])
    ]
    if not different:
        return []
    return [
        f"{path}: {len(different)} of {len(chosen)} images have another height and width than "
        f"listed: {examples(different)}"
    ]


def _summarise(coco: dict, classes: tuple[str, ...], warnings: list[str]) -> SplitSummary:
    names = {category["id"]: category["name"] for category in coco["categories"]}
    per_class: dict[str, float] = dict.fromkeys(classes, 0)
    occupied = set()
    for annotation in coco["annotations"]:
        name = names[annotation["category_id"]]
        if name in per_class:
            per_class[name] += 1
            occupied.add(annotation["image_id"])
    return SplitSummary(
        images=len(coco["images"]),
        empty=len(coco["images"]) - len(occupied),
        instances=int(sum(per_class.values())),
        per_class=per_class,
        warnings=warnings,
    )
