"""Checks a COCO annotation file against the config and the images."""

import difflib
import os

from swin_mm.datasets.check.annotations import (
    check_numbers,
    check_references,
    keep_sound,
    read_coco,
)
from swin_mm.datasets.check.corrections import (
    check_images_present,
    check_listed_once,
    class_key,
    find_group_class,
)
from swin_mm.datasets.check.images import DECODED, check_present, spread
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.masks import check_masks
from swin_mm.datasets.check.objects import count_objects, named_objects, why_left_out
from swin_mm.datasets.check.scoring import find_unscorable
from swin_mm.datasets.check.sizes import (
    Size,
    check_orientation,
    compare_sizes,
    count_beyond,
    count_cut,
    note_depth,
    note_unsure,
    sizes_of,
)
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples
from swin_mm.datasets.reader import Reader

MATCH_NAMES = "check-dataset --match-names writes annotations with their names"
MERGE_CLASSES = "check-dataset --merge-classes, which writes annotations with one"


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
        warnings += inspection.attempt(check_masks, coco, path) or []

    summary = summarise(coco, source.classes(), warnings, path, labelled)
    summary.unscorable = find_unscorable(coco)
    if labelled and len(coco["annotations"]) == given:  # else the faults say enough
        count_objects(coco, source, summary)
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
    names = [image["file_name"] for image in coco["images"]]
    remedy = "correct data_root and data_prefix"
    inspection.attempt(check_images_present, names, folder, source.where, remedy, MATCH_NAMES)
    images = coco["images"]
    if inspection.thorough:
        there = [index for index, file in enumerate(files) if os.path.isfile(file)]
        images, files = [images[index] for index in there], [files[index] for index in there]
    reader = source.reader()
    note = inspection.look_into(files, source.where, reader)
    chosen = spread(len(files)) if inspection.thorough else spread(len(files))[:DECODED]
    wanted = sizes_of([images[i] for i in chosen], [files[i] for i in chosen])
    warnings = [note] if note else []
    if reader.can_check:
        warnings += _compare_sizes(coco, wanted, source, reader, inspection)
    return warnings


def check_categories(coco: dict, source: Source, path: str) -> list[str]:
    """Compares names: mmdet numbers classes in the file's order and skips what it does not find."""
    wanted = source.classes()
    names = [category["name"] for category in coco["categories"]]
    lacking = [name for name in wanted if name not in names]
    setting = f"{source.where}.metainfo.classes"
    if not wanted:
        raise DatasetError(f"{setting} is not set: write the names, {tuple(names)}")
    if not names:
        raise DatasetError(f"{path} has no categories: it must list the classes")
    check_listed_once(coco, path, MERGE_CLASSES, wanted)
    if lacking:
        same = {class_key(name): name for name in names}
        nearest = [
            f"{name!r} (it has {same[class_key(name)]!a}, other characters that look the same)"
            if class_key(name) in same
            else f"{name!r} (is it {match[0]!r}?)"
            if match
            else repr(name)
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
    group = find_group_class(coco)
    ignored = [name for name in names if name not in wanted and name != group]
    warnings = [f"{path}: classes not in the config are left out: {examples(ignored)}"]
    warnings *= bool(ignored)
    if group in wanted and source.where.startswith("train"):
        warnings.append(
            f"{path}: {group!r} is the supercategory of all other classes and has no object, as "
            f"Roboflow writes it: it is no class, so leave it out of {setting}"
        )
    return warnings


def check_boxes(coco: dict, path: str) -> list[str]:
    """Returns warnings of boxes that mmdet clips or leaves out.

    Raises:
        DatasetError: Sizes, boxes, areas or crowd flags are not the numbers they must be.
    """
    check_numbers(coco, path)
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


def _compare_sizes(
    coco: dict, wanted: dict[str, Size], source: Source, reader: Reader, inspection: Inspection
) -> list[str]:
    """Compares the listed sizes of images with those that are loaded; returns warnings."""
    path = source.path(source.argument("ann_file") or "")
    readable = {f: size for f, size in wanted.items() if f not in inspection.unreadable}
    found = inspection.attempt(compare_sizes, reader, readable)
    if found is None:
        return []
    cut = count_cut(coco, source.prefix("img"), found.turned)
    inspection.attempt(check_orientation, found, source, reader, path, cut)
    warnings = note_unsure(found, source, reader) + note_depth(found, source, reader)
    if found.different:
        first, listed = found.different[0], wanted[found.different[0]]
        text = (
            f"{path}: {len(found.different)} of {len(readable)} images have another height and "
            f"width than listed: {examples(found.different)}; the first has {reader.size(first)}, "
            f"not {listed}: write sizes and annotations in the pixels of the files"
        )
        is_turned = reader.size(first) == listed[::-1]  # what is beyond would be cut off
        with_mask = (source.transform("LoadAnnotations") or {}).get("with_mask")
        files = {file: reader.size(file) for file in found.different}
        if is_turned or count_beyond(coco, source.prefix("img"), files, bool(with_mask)):
            inspection.refuse(text)
        else:
            warnings.append(text)
    return warnings


def summarise(
    coco: dict, classes: tuple[str, ...], warnings: list[str], path: str, labelled: bool
) -> SplitSummary:
    """Counts images and objects; images without objects are a warning where data is labelled."""
    per_class: dict[str, float] = dict.fromkeys(classes, 0)
    occupied = set()
    for name, annotation in named_objects(coco):
        if name in per_class:
            per_class[name] += 1
            occupied.add(annotation["image_id"])
    empty = [image["file_name"] for image in coco["images"] if image["id"] not in occupied]
    if empty and labelled:
        warnings = [*warnings, f"{path}: {len(empty)} images have no object: {examples(empty)}"]
    return SplitSummary(
        images=len(coco["images"]),
        empty=len(empty),
        instances=int(sum(per_class.values())),
        per_class=per_class,
        warnings=warnings,
    )
