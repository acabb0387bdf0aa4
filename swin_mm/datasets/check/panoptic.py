"""Checks annotations and maps of COCO's panoptic form."""

import os
import time
from importlib.util import find_spec

import numpy as np

from swin_mm.datasets.check.annotations import check_references, keep_sound, read_coco
from swin_mm.datasets.check.coco import (
    check_boxes,
    check_categories,
    check_images,
    summarise,
)
from swin_mm.datasets.check.images import check_present, spread
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.reader import Reader

FORM = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"image_id", "segments_info"},
    "categories": {"id", "name", "isthing"},
}
SEGMENT = {"id", "category_id", "bbox", "area"}


def check_panoptic(source: Source, inspection: Inspection, labelled: bool = True) -> SplitSummary:
    """Checks a data set that mmdet reads as `CocoPanopticDataset` does.

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
    if source.transform("LoadPanopticAnnotations"):
        inspection.attempt(_check_package, source)
    coco = inspection.attempt(
        read_coco, path, source.where, labelled, FORM, "panoptic segmentation"
    )
    coco = inspection.attempt(flatten, coco, path) if coco else None
    if coco is None:
        return SplitSummary()
    warnings = inspection.attempt(check_categories, coco, source, path) or []
    inspection.attempt(check_references, coco, path)
    warnings += inspection.attempt(check_boxes, coco, path) or []
    if inspection.thorough:
        coco = keep_sound(coco)
    summary = summarise(coco, source.classes(), warnings, path, labelled)
    if labelled:
        inspection.attempt(_check_instances, summary, path)
    summary.warnings += check_images(coco, source, path, inspection)
    if labelled:
        summary.warnings += _check_maps(coco, source, inspection)
    return summary


def _check_instances(summary: SplitSummary, path: str) -> None:
    if not summary.instances:
        raise DatasetError(
            f"{path} has no object of the config's classes: there is nothing to learn or to score"
        )


def _check_package(source: Source) -> None:
    if find_spec("panopticapi") is None:
        raise DatasetError(
            f"{source.where}: mmdet reads and scores panoptic maps with panopticapi, which is not "
            "installed: pip install git+https://github.com/cocodataset/panopticapi.git"
        )


def flatten(coco: dict, path: str) -> dict:
    """Turns panoptic annotations into the form that objects have: one for each segment.

    Args:
        coco: A panoptic annotation file.
        path: The file, for the message.

    Returns:
        A file for object detection. Since the ids of segments are those within an image, an
        annotation's is `IMAGE:SEGMENT`.

    Raises:
        DatasetError: A segment lacks what mmdet reads.
    """
    segments = []
    for annotation in coco["annotations"]:
        for segment in annotation["segments_info"]:
            if not segment.keys() >= SEGMENT:
                raise DatasetError(
                    f"{path}: a segment of image {annotation['image_id']} lacks "
                    f"{', '.join(sorted(SEGMENT - segment.keys()))}; every one needs "
                    f"{', '.join(sorted(SEGMENT))}"
                )
            segments.append(
                {
                    **segment,
                    "id": f"{annotation['image_id']}:{segment['id']}",
                    "segment": segment["id"],
                    "image_id": annotation["image_id"],
                }
            )
    return {**coco, "annotations": segments}


def _check_maps(coco: dict, source: Source, inspection: Inspection) -> list[str]:
    """Compares maps with the segments that the annotations list; returns warnings."""
    folder = source.prefix("seg")
    # mmdet replaces this suffix and no other.
    files = {
        image["id"]: os.path.join(folder, image["file_name"].replace(".jpg", ".png"))
        for image in coco["images"]
    }
    inspection.attempt(check_present, list(files.values()), source.where, "map")
    if inspection.thorough:
        files = {key: file for key, file in files.items() if os.path.isfile(file)}
    reader = Reader()  # as `LoadPanopticAnnotations`, whatever its settings
    note = inspection.look_into(list(files.values()), source.where, reader, "map")
    listed: dict = {key: set() for key in files}
    for segment in coco["annotations"]:
        if segment["image_id"] in listed:
            listed[segment["image_id"]].add(segment["segment"])
    sizes = {image["id"]: (image["height"], image["width"]) for image in coco["images"]}

    readable = [key for key, file in files.items() if file not in inspection.unreadable]
    chosen = spread(len(readable))[: int(min(inspection.label_maps, len(readable)))]
    deadline = time.monotonic() + inspection.seconds
    wrong, unlisted = [], []
    with show_progress(f"{source.where}: maps", len(chosen)) as advance:
        for key in (readable[index] for index in chosen):
            if time.monotonic() > deadline:
                break
            ids = read_ids(reader, files[key])
            if ids.shape != sizes[key]:
                wrong.append(f"{files[key]} has {ids.shape} pixels, its image {sizes[key]}")
            drawn = set(np.unique(ids).tolist())
            if absent := listed[key] - drawn:
                wrong.append(f"{files[key]} does not have the segments {examples(absent)}")
            if drawn - listed[key] - {0}:
                unlisted.append(files[key])
            advance(1)
    if wrong:
        more = f" (and {len(wrong) - 1} more like it)" if len(wrong) > 1 else ""
        inspection.refuse(f"{source.where}: {wrong[0]}{more}; write the maps anew")
    warnings = [note] if note else []
    if unlisted:
        warnings.append(
            f"{source.where}: {len(unlisted)} maps have segments that the annotations do not list, "
            f"and that are ignored: {examples(unlisted)}"
        )
    return warnings


def read_ids(reader: Reader, path: str) -> np.ndarray:
    """Reads a panoptic map: `(H, W)`, the id of each pixel's segment; 0 is none.

    Source:
        https://github.com/cocodataset/panopticapi/blob/master/panopticapi/utils.py: an id is red +
        256 * green + 256^2 * blue.
    """
    return reader.load(path).astype(np.int64) @ np.array([1, 256, 256**2])
