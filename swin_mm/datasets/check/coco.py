"""Checks COCO annotations, of objects or panoptic, against the config and the images."""

import difflib
import os
from itertools import starmap

import numpy as np

from swin_mm.datasets.check.annotations import (
    DETECTION,
    PANOPTIC,
    check_numbers,
    check_references,
    flatten_segments,
    keep_sound,
    read_coco,
)
from swin_mm.datasets.check.corrections import (
    COPY,
    check_listed_once,
    class_key,
    find_placeholders,
    suggest_matching,
)
from swin_mm.datasets.check.images import check_present, spread
from swin_mm.datasets.check.inspection import DECODED, Inspection
from swin_mm.datasets.check.masks import check_masks
from swin_mm.datasets.check.objects import (
    count_objects,
    find_unscorable,
    named_objects,
    visible_size,
    why_left_out,
)
from swin_mm.datasets.check.sizes import (
    Size,
    check_orientation,
    compare_sizes,
    count_beyond,
    note_doubts,
)
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, and_more, examples
from swin_mm.datasets.reader import Reader

# As many boxes as this, and such a part of all, reach beyond their images if they are corners.
CLIPPED_LEAST, CLIPPED_SHARE = 3, 0.1


def check_coco(source: Source, inspection: Inspection, labelled: bool) -> SplitSummary:
    """Checks a data set that mmdet reads as `CocoDataset` or `CocoPanopticDataset` does."""
    is_panoptic = source.reads_like("CocoPanopticDataset")
    path, form = source.ann_file(), PANOPTIC if is_panoptic else DETECTION
    coco = inspection.attempt(read_coco, path, source.where, labelled, form)
    if coco and is_panoptic:
        coco = inspection.attempt(flatten_segments, coco, path)
    if not coco:
        return SplitSummary()
    warnings = inspection.attempt(check_categories, coco, source, path) or []
    inspection.attempt(check_references, coco, path)
    warnings += inspection.attempt(check_boxes, coco, path) or []
    given = len(coco["annotations"])
    if inspection.thorough:
        coco = keep_sound(coco)
    loading = source.transform("LoadAnnotations")
    if loading.get("with_mask"):
        warnings += inspection.attempt(check_masks, coco, path) or []
    is_sound = len(coco["annotations"]) == given  # else the errors say enough
    listed = len(coco["images"])
    coco = inspection.attempt(choose_images, coco, source) or coco
    if len(coco["images"]) < listed and not (is_panoptic or source.where.startswith("train")):
        warnings.append(
            f"{source.where}.indices takes {len(coco['images'])} of {listed} images, but the COCO "
            f"metric scores all of {path}: objects in the others count as missed"
        )
    summary = summarise(coco, source.classes(), warnings, path, labelled)
    if not is_panoptic:
        summary.unscorable = find_unscorable(coco)
    if labelled and is_sound:
        if is_panoptic:
            summary.learned = {name: int(count) for name, count in summary.per_class.items()}
        else:
            count_objects(coco, source, summary)
    summary.warnings += check_images(coco, source, path, inspection)
    if is_panoptic and labelled:
        summary.warnings += check_panoptic_maps(coco, source, inspection)
    elif loading.get("with_seg"):
        inspection.attempt(_check_maps, coco, source)
    return summary


def choose_images(coco: dict, source: Source) -> dict:
    """Leaves the images that `indices` of a data set takes, and their annotations.

    Source:
        `CocoDataset.filter_data` of mmdet 3.3, after which `BaseDataset` takes the subset.
    """
    if source.argument("indices") is None:
        return coco
    images = coco["images"]
    settings = source.argument("filter_cfg")
    if settings and not source.argument("test_mode"):
        if settings.get("filter_empty_gt"):
            stuff = {c["name"] for c in coco["categories"] if not c.get("isthing", True)}
            wanted = set(source.classes()) - stuff
            occupied = {a["image_id"] for name, a in named_objects(coco) if name in wanted}
            images = [image for image in images if image["id"] in occupied]
        least = settings.get("min_size", 0)
        images = [image for image in images if min(image["width"], image["height"]) >= least]
    images = source.subset(images)
    ids = {image["id"] for image in images}
    kept = [annotation for annotation in coco["annotations"] if annotation["image_id"] in ids]
    return {**coco, "images": images, "annotations": kept}


def _check_maps(coco: dict, source: Source) -> None:
    """Checks that label maps are there, which detectors such as HTC train on beside objects."""
    folder, suffix = source.prefix("seg"), source.argument("seg_map_suffix") or ".png"
    names = [image["file_name"].rpartition(".")[0] + suffix for image in coco["images"]]
    check_present([os.path.join(folder, name) for name in names], source.where, "label map")


def check_categories(coco: dict, source: Source, path: str) -> list[str]:
    """Compares names: mmdet numbers classes in the file's order and skips what it does not find."""
    wanted = source.classes()
    names = [category["name"] for category in coco["categories"]]
    setting = f"{source.where}.metainfo.classes"
    if not wanted:
        raise DatasetError(f"{setting} is not set: write the names, {tuple(names)}")
    if not names:
        raise DatasetError(f"{path} has no categories: it must list the classes")
    check_listed_once(coco, path, wanted)
    if lacking := [name for name in wanted if name not in names]:
        nearest = examples(_describe_lacking(name, names) for name in lacking)
        raise DatasetError(
            f"the config's classes {examples(wanted)} are not those of {path}, {examples(names)}: "
            f"it lacks {nearest}; set {setting} of every data loader to the file's names"
        )
    ordered = [name for name in names if name in wanted]
    if ordered != list(wanted):
        raise DatasetError(
            f"{setting} lists {examples(wanted)} but {path} has {examples(ordered)}, and mmdet "
            f"numbers classes in the file's order: write them so, {tuple(ordered)}"
        )
    warnings, placeholders = [], find_placeholders(coco)
    if ignored := [name for name in names if name not in wanted and name not in placeholders]:
        warnings.append(f"{path}: classes not in the config are left out: {examples(ignored)}")
    if source.where.startswith("train"):
        warnings += [
            f"{path}: {name!r} is no class: {why}; leave it out of {setting}"
            for name, why in placeholders.items()
            if name in wanted
        ]
    return warnings


def _describe_lacking(name: str, names: list[str]) -> str:
    same = [other for other in names if class_key(other) == class_key(name)]
    if same:
        return f"{name!r} (it has {same[-1]!a}, other characters that look the same)"
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"{name!r} (is it {nearest[0]!r}?)" if nearest else repr(name)


def check_boxes(coco: dict, path: str) -> list[str]:
    """Checks that boxes are boxes and no corners; warns of those that mmdet clips or leaves out."""
    check_numbers(coco, path)
    images = {image["id"]: image for image in coco["images"]}
    left_out = "are empty or outside, and are left out"
    clipped = "reach beyond their image, and are clipped"
    odd: dict[str, list] = {left_out: [], clipped: []}
    for annotation in coco["annotations"]:
        if image := images.get(annotation["image_id"]):
            _, _, width, height = annotation["bbox"]
            seen_width, seen_height = visible_size(annotation, image)
            if why_left_out(annotation, image):
                odd[left_out].append(annotation["id"])
            # A pixel's slack: many tools write the last pixel's index, COCO its far edge.
            elif seen_width < width - 1 or seen_height < height - 1:
                odd[clipped].append(annotation["id"])
    given = [
        (a["bbox"], images[a["image_id"]]) for a in coco["annotations"] if a["image_id"] in images
    ]
    if len(odd[clipped]) >= max(CLIPPED_LEAST, CLIPPED_SHARE * len(given)) and all(
        starmap(_fits_as_corners, given)
    ):
        raise DatasetError(
            f"{path}: {len(odd[clipped])} of {len(given)} boxes reach beyond their image, and all "
            "would be in it as left, top, right and bottom: bbox must be left, top, width and "
            "height; if it is, clip the boxes to their images"
        )
    return [
        f"{path}: {len(ids)} boxes {what}: those of annotations {examples(ids)}"
        for what, ids in odd.items()
        if ids
    ]


def _fits_as_corners(box: list[float], image: dict) -> bool:
    left, top, right, bottom = box
    return left < right <= image["width"] + 1 and top < bottom <= image["height"] + 1


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


def check_images(coco: dict, source: Source, path: str, inspection: Inspection) -> list[str]:
    """Checks the images that an annotation file lists."""
    folder = source.prefix("img")
    names = [image["file_name"] for image in coco["images"]]
    inspection.attempt(_check_present, names, folder, source.where, path)
    listed = {
        os.path.join(folder, i["file_name"]): (i["height"], i["width"]) for i in coco["images"]
    }
    reader = source.reader()
    warnings = inspection.look_into(list(listed), source.where, reader)
    if not reader.can_check:
        return warnings
    files = [file for file in listed if inspection.can_use(file)]
    chosen = spread(len(files)) if inspection.thorough else spread(len(files))[:DECODED]
    wanted = {files[i]: listed[files[i]] for i in chosen}
    return warnings + _compare_sizes(coco, wanted, source, reader, inspection)


def _check_present(names: list[str], folder: str, where: str, path: str) -> None:
    """Checks that images exist; if not, the message has the command that matches their names."""
    try:
        check_present([os.path.join(folder, name) for name in names], where)
    except DatasetError as error:
        if advice := suggest_matching(names, folder):
            advice += f": use the copy that `{COPY.format(path)} --images {folder}` writes"
        raise DatasetError(f"{error}{advice}") from None


def _compare_sizes(
    coco: dict, wanted: dict[str, Size], source: Source, reader: Reader, inspection: Inspection
) -> list[str]:
    """Compares the listed sizes of images with those that are loaded."""
    path, folder = source.ann_file(), source.prefix("img")
    found = inspection.attempt(compare_sizes, reader, wanted)
    if found is None:
        return []
    cut = count_beyond(coco, folder, {file: wanted[file] for file in found.turned})
    inspection.attempt(check_orientation, found, source, reader, path, cut)
    warnings = note_doubts(found, source, reader)
    if found.different:
        sizes = {file: reader.size(file) for file in found.different}
        first, size = next(iter(sizes.items()))
        text = (
            f"{path}: {len(sizes)} of {len(wanted)} images have another height and width than "
            f"listed: {examples(sizes)}; the first has {size}, not {wanted[first]}: write sizes "
            "and annotations in the pixels of the files"
        )
        is_turned = size == wanted[first][::-1]  # what is beyond would be cut off
        with_mask = bool(source.transform("LoadAnnotations").get("with_mask"))
        if is_turned or count_beyond(coco, folder, sizes, with_mask):
            inspection.refuse(text)
        else:
            warnings.append(text)
    return warnings


def check_panoptic_maps(coco: dict, source: Source, inspection: Inspection) -> list[str]:
    """Compares maps with the segments that the annotations list."""
    folder, where = source.prefix("seg"), source.where
    # mmdet replaces this suffix and no other.
    files = {
        image["id"]: os.path.join(folder, image["file_name"].replace(".jpg", ".png"))
        for image in coco["images"]
    }
    inspection.attempt(check_present, list(files.values()), where, "map")
    reader = Reader()  # as `LoadPanopticAnnotations`, whatever its settings
    warnings = inspection.look_into(list(files.values()), where, reader, "map")
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}
    listed: dict = {key: set() for key in files}
    for segment in coco["annotations"]:
        listed.get(segment["image_id"], set()).add(segment["segment"])

    usable = [key for key, file in files.items() if inspection.can_use(file)]
    wrong, unlisted = [], []
    for key in inspection.sample(usable, f"{where}: maps"):
        ids = read_ids(reader, files[key])
        if ids.shape != sizes[key]:
            wrong.append(f"{files[key]} has {ids.shape} pixels, its image {sizes[key]}")
        drawn = set(np.unique(ids).tolist())
        if absent := listed[key] - drawn:
            wrong.append(f"{files[key]} does not have the segments {examples(absent)}")
        if drawn - listed[key] - {0}:
            unlisted.append(files[key])
    if wrong:
        inspection.refuse(f"{where}: {wrong[0]}{and_more(len(wrong))}; write the maps again")
    if unlisted:
        warnings.append(
            f"{where}: {len(unlisted)} maps have segments that the annotations do not list, and "
            f"that are ignored: {examples(unlisted)}"
        )
    return warnings


def read_ids(reader: Reader, path: str) -> np.ndarray:
    """Reads a panoptic map: `(H, W)`, the id of each pixel's segment; 0 is none.

    Source:
        https://github.com/cocodataset/panopticapi/blob/master/panopticapi/utils.py: an id is red +
        256 * green + 256^2 * blue.
    """
    return reader.load(path).astype(np.int64) @ np.array([1, 256, 256**2])
