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
    image_size,
    spread,
)
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.masks import check_masks
from swin_mm.datasets.check.objects import count_objects, named_objects, why_left_out
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples

KEYS = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}


def check_coco(source: Source, inspection: Inspection, labelled: bool = True) -> SplitSummary:
    """Checks a data set that mmdet reads as `CocoDataset` does.

    Args:
        source: The data set.
        inspection: How closely to look.
        labelled: Whether annotations are required; a test set may come without.

    Raises:
        DatasetError: Anything that training or testing would fail on, or silently get wrong, as far
            as the inspection does not keep it.
    """
    path = source.path(source.argument("ann_file") or "")
    if source.is_remote():
        return SplitSummary(warnings=[f"{source.where}: files on a server are not checked"])
    coco = inspection.attempt(read_coco, path, source.where, labelled)
    if coco is None:
        return SplitSummary()
    warnings = inspection.attempt(check_categories, coco, source, path) or []
    inspection.attempt(check_references, coco, path)
    warnings += inspection.attempt(check_boxes, coco, path) or []
    given = len(coco["annotations"])
    if inspection.thorough:
        coco = keep_sound(coco)
    loading = source.transform("LoadAnnotations") or {}
    if loading.get("with_mask"):
        warnings += inspection.attempt(check_masks, coco, path, inspection.thorough) or []

    summary = summarise(coco, source.classes(), warnings)
    if labelled and len(coco["annotations"]) == given:  # else the faults say enough
        count_objects(coco, source, summary)
    if inspection.thorough and labelled:
        summary.warnings += list_empty(coco, source, path)
    summary.warnings += check_images(coco, source, path, inspection)
    if loading.get("with_seg"):
        inspection.attempt(_check_maps, coco, source)
    return summary


def _check_maps(coco: dict, source: Source) -> None:
    """Checks that label maps are there, which detectors such as HTC train on beside objects."""
    folder, suffix = source.prefix("seg"), source.argument("seg_map_suffix") or ".png"
    names = [image["file_name"].rpartition(".")[0] + suffix for image in coco["images"]]
    check_present([os.path.join(folder, name) for name in names], source.where, "label map")


def check_images(coco: dict, source: Source, path: str, inspection: Inspection) -> list[str]:
    """Checks the images that an annotation file lists; returns warnings."""
    folder = source.prefix("img")
    files = [os.path.join(folder, image["file_name"]) for image in coco["images"]]
    inspection.attempt(check_present, files, source.where)
    images = coco["images"]
    if inspection.thorough:
        there = [index for index, file in enumerate(files) if os.path.isfile(file)]
        images, files = [images[index] for index in there], [files[index] for index in there]
    note = inspection.look_into(files, source.where)
    return [*([note] if note else []), *_compare_sizes(images, files, path, inspection)]


def read_coco(
    path: str,
    where: str,
    labelled: bool = True,
    form: dict[str, set[str]] = KEYS,
    task: str = "object detection",
) -> dict:
    """Reads an annotation file and checks its form.

    Args:
        path: The file.
        where: Config path of the data set, for the message.
        labelled: Whether annotations are required.
        form: Lists that it must have, and the keys of their items.
        task: What it is for, for the message.

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
    remedy = f"it must be a COCO file for {task}: {', '.join(form)}"
    if isinstance(coco, list):
        raise DatasetError(f"{path} is a list, as COCO results are, not annotations: {remedy}")
    if not isinstance(coco, dict):
        raise DatasetError(f"{path} is JSON but not COCO: {remedy}")
    if not labelled:
        coco.setdefault("annotations", [])
    for section, keys in form.items():
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


def check_categories(coco: dict, source: Source, path: str) -> list[str]:
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


def check_references(coco: dict, path: str) -> None:
    """Checks that ids are used once, and that annotations name images and classes that are there.

    Args:
        coco: What `read_coco` returned.
        path: The file, for the message.

    Raises:
        DatasetError: They do not.
    """
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


def check_boxes(coco: dict, path: str) -> list[str]:
    """Refuses what are not numbers; counts the boxes that mmdet clips or leaves out."""
    wrong = [_find_wrong_size(image) for image in coco["images"]]
    wrong += [_find_wrong_box(annotation) for annotation in coco["annotations"]]
    wrong = [text for text in wrong if text]
    if wrong:
        more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        raise DatasetError(f"{path}: {wrong[0]}{more}")
    images = {image["id"]: image for image in coco["images"]}
    clipped, skipped = [], []
    for annotation in coco["annotations"]:
        image = images.get(annotation["image_id"])
        if image is None:
            continue
        left, top, width, height = annotation["bbox"]
        if why_left_out(annotation, image):
            skipped.append(annotation["id"])
        # A pixel's slack: many tools write the last pixel's index where COCO has its far edge.
        elif (
            min(left + width, image["width"]) - max(left, 0) < width - 1
            or min(top + height, image["height"]) - max(top, 0) < height - 1
        ):
            clipped.append(annotation["id"])
    warnings = []
    if skipped:
        warnings.append(
            f"{path}: {len(skipped)} boxes are empty or outside, and are left out: those of "
            f"annotations {examples(skipped)}"
        )
    if clipped:
        warnings.append(
            f"{path}: {len(clipped)} boxes reach beyond their image, and are clipped: those of "
            f"annotations {examples(clipped)}"
        )
    return warnings


def _find_wrong_size(image: dict) -> str | None:
    size = (image["width"], image["height"])
    if _are_numbers(size) and min(size) > 0:
        return None
    return f"image {image['id']} has width and height {size}; both must be pixels"


def _find_wrong_box(annotation: dict) -> str | None:
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and _are_numbers(box)):
        return (
            f"annotation {annotation['id']} has bbox={box}; it must be four numbers, left, top, "
            "width and height in pixels"
        )
    if not _are_numbers([annotation["area"]]):
        return (
            f"annotation {annotation['id']} has area={annotation['area']!r}; it must be the number "
            "of pixels of the object"
        )
    return None


def keep_sound(coco: dict) -> dict:
    """Leaves out what was found wrong, so that later checks can go on with the rest."""
    images = [image for image in coco["images"] if not _find_wrong_size(image)]
    known = {image["id"] for image in images}
    named = {category["id"] for category in coco["categories"]}
    annotations = [
        annotation
        for annotation in coco["annotations"]
        if annotation["image_id"] in known
        and annotation["category_id"] in named
        and not _find_wrong_box(annotation)
    ]
    return {**coco, "images": images, "annotations": annotations}


def _are_numbers(values: Sequence) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def list_empty(coco: dict, source: Source, path: str) -> list[str]:
    """Returns a warning that names images without objects, if there are any."""
    classes = set(source.classes())
    occupied = {a["image_id"] for name, a in named_objects(coco) if name in classes}
    empty = [i["file_name"] for i in coco["images"] if i["id"] not in occupied]
    return [f"{path}: {len(empty)} images have no object: {examples(empty)}"] * bool(empty)


def _compare_sizes(
    images: list[dict], files: list[str], path: str, inspection: Inspection
) -> list[str]:
    """Compares the listed sizes of some images, or of all, with those in the files."""
    chosen = spread(len(files)) if inspection.thorough else spread(len(files))[:DECODED]
    different = [
        files[i]
        for i in chosen
        if files[i] not in inspection.unreadable
        and image_size(files[i]) != (images[i]["height"], images[i]["width"])
    ]
    if not different:
        return []
    return [
        f"{path}: {len(different)} of {len(chosen)} images have another height and width than "
        f"listed: {examples(different)}"
    ]


def summarise(coco: dict, classes: tuple[str, ...], warnings: list[str]) -> SplitSummary:
    per_class: dict[str, float] = dict.fromkeys(classes, 0)
    occupied = set()
    for name, annotation in named_objects(coco):
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
