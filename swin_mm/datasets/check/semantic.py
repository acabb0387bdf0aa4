"""Checks images and label maps for semantic segmentation."""

import os

import numpy as np

from swin_mm.datasets.check.corrections import list_files
from swin_mm.datasets.check.images import check_present
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.label_maps import (
    LARGEST,
    LabelCounter,
    LabelError,
    find_label_map,
    read_labels,
)
from swin_mm.datasets.check.sizes import (
    check_orientation,
    compare_sizes,
    fits_better_turned,
    note_doubts,
    orientation_option,
)
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, and_more, examples


def check_semantic(source: Source, inspection: Inspection, labelled: bool) -> SplitSummary:
    """Checks a data set that mmseg reads as `BaseSegDataset` does."""
    if not source.classes():
        raise DatasetError(
            f"{source.where}.metainfo.classes is not set: write the names of the classes, in the "
            "order of the values in the label maps"
        )
    inspection.attempt(_check_class_count, source)
    names = inspection.attempt(_list_names, source)
    names = inspection.attempt(source.subset, names) if names else None
    if names is None:
        return SplitSummary()
    suffix = source.argument("img_suffix") or ""
    images = [os.path.join(source.prefix("img_path"), name + suffix) for name in names]
    inspection.attempt(check_present, images, source.where)
    notes = inspection.look_into(images, source.where, source.reader())
    summary = SplitSummary(images=len(images))
    if labelled or (source.settings.get("data_prefix") or {}).get("seg_map_path"):
        folder = source.prefix("seg_map_path")
        suffix = source.argument("seg_map_suffix") or ""
        labels = [os.path.join(folder, name + suffix) for name in names]
        inspection.attempt(check_present, labels, source.where, "label map")
        label_map = inspection.attempt(find_label_map, source) or {}
        counter = LabelCounter(source, inspection.ignored, label_map)
        notes += inspection.look_into(labels, source.where, counter.reader, "label map")
        # A list, or `indices`, takes a part of a folder on purpose.
        if not source.argument("ann_file") and source.argument("indices") is None:
            notes += _note_unused(folder, suffix, labels)
        inspection.attempt(_check_zero_label, source)
        pairs = zip(images, labels, strict=True)
        usable = {i: label for i, label in pairs if all(map(inspection.can_use, (i, label)))}
        summary = _check_values(source, usable, counter, inspection)
        summary.images = len(images)
    summary.warnings += notes
    return summary


def _check_class_count(source: Source) -> None:
    """Checks that the labels fit mmseg's 8 bits beside the ignored value, 255."""
    count, reduced = len(source.classes()), bool(source.argument("reduce_zero_label"))
    if count > LARGEST - reduced:
        raise DatasetError(
            f"{source.where} has {count} classes, but mmseg loads label maps as uint8, in which "
            f"255 is the ignored value: at most {LARGEST - reduced} classes"
            f"{' with reduce_zero_label' * reduced}; merge classes"
        )
    if count == 1:
        raise DatasetError(
            f"{source.where} has one class, so every labelled pixel is of it and nothing is "
            "learned: name what is around it as well: metainfo.classes=('background', NAME) with "
            "label maps of 0 and 1, reduce_zero_label=False, and num_classes=2 in the heads"
        )


def _list_names(source: Source) -> list[str]:
    """Lists the images, without suffix: those of `ann_file`, else all in their folder."""
    path = source.ann_file()
    if source.argument("ann_file") and not os.path.isdir(path):
        if not os.path.isfile(path):
            raise DatasetError(
                f"{source.where}: there is no file {path} of image names; correct ann_file, or "
                "leave it out to take all images of the folder"
            )
        with open(path) as file:
            names = [line.strip() for line in file if line.strip()]
        if not names:
            raise DatasetError(f"{source.where}: {path} names no image; write one name a line")
        return names
    folder, suffix = source.prefix("img_path"), source.argument("img_suffix") or ""
    if not os.path.isdir(folder):
        raise DatasetError(
            f"{source.where}: there is no folder {folder} of images; put the data there, or "
            "correct data_root and data_prefix.img_path"
        )
    files = list_files(folder)
    names = [file.removesuffix(suffix) for file in sorted(files) if file.endswith(suffix)]
    if not names:
        endings = sorted({os.path.splitext(file)[1] for file in files}) or ["nothing"]
        raise DatasetError(
            f"{source.where}: no file in {folder} ends in {suffix!r} (there is {examples(endings)})"
            f": --cfg-options {source.where}.img_suffix=SUFFIX"
        )
    return names


def _note_unused(folder: str, suffix: str, used: list[str]) -> list[str]:
    unused = {file for file in list_files(folder) if file.endswith(suffix)}
    unused -= {os.path.relpath(path, folder) for path in used}
    if not unused:
        return []
    return [f"{folder}: {len(unused)} label maps have no image: {examples(sorted(unused))}"]


def _check_zero_label(source: Source) -> None:
    """Checks that data set and pipeline agree; mmseg asserts it at the first image."""
    stated = source.transform("LoadAnnotations").get("reduce_zero_label")
    reduced = bool(source.argument("reduce_zero_label"))
    if stated is not None and stated != reduced:
        raise DatasetError(
            f"{source.where} has reduce_zero_label={reduced} but LoadAnnotations in its pipeline "
            f"{stated}; leave it out of the pipeline"
        )


def _check_values(
    source: Source, labels: dict[str, str], counter: LabelCounter, inspection: Inspection
) -> SplitSummary:
    """Reads label maps, as many as the limits allow, and counts the pixels of each class.

    `labels` has the label map of each image, which `counter` reads.
    """
    counts = np.zeros(len(counter.classes) + 1, dtype=np.int64)  # the last for ignored pixels
    faults: dict[str, list[str]] = {}
    sizes: dict[str, tuple[int, int]] = {}  # of the label map, by image
    empty, read = [], 0
    for image in inspection.sample(list(labels), f"{source.where}: labels"):
        read += 1
        try:
            found, sizes[image] = counter.count(labels[image])
        except LabelError as error:
            faults.setdefault(error.kind, []).append(str(error))
            if not inspection.thorough:
                break
        else:
            counts += found
            empty += [os.path.basename(labels[image])] if not found[:-1].any() else []
    for texts in faults.values():
        inspection.refuse(texts[0] + and_more(len(texts), "label maps "))
    summary = SplitSummary(images=len(labels), empty=len(empty), sampled=read < len(labels))
    summary.warnings += _compare_sizes(sizes, labels, counter, source, inspection)
    shares = counts[:-1] / max(1, counts[:-1].sum())
    summary.per_class = dict(zip(counter.classes, shares.tolist(), strict=True))
    absent = [name for name, share in summary.per_class.items() if not share]
    if absent and read:
        # Values that start at 0 lose their first class then, and never reach the last.
        is_suspect = source.argument("reduce_zero_label") and counter.classes[-1] in absent
        hint = "; if value 0 is a class, set reduce_zero_label=False" if is_suspect else ""
        summary.warnings.append(
            f"{source.where}: no pixel of {examples(absent)} in the {read} label maps read; "
            f"{counts[-1] / max(1, counts.sum()):.0%} of all pixels are ignored (value "
            f"{counter.ignored}){hint}"
        )
    if empty and inspection.thorough:
        summary.warnings.append(
            f"{source.where}: {len(empty)} label maps have no labelled pixel: {examples(empty)}"
        )
    return summary


def _compare_sizes(
    sizes: dict[str, tuple[int, int]],
    labels: dict[str, str],
    counter: LabelCounter,
    source: Source,
    inspection: Inspection,
) -> list[str]:
    """Compares images as they are loaded with the sizes of their label maps."""
    reader = source.reader()
    found = inspection.attempt(compare_sizes, reader, sizes) if reader.can_check else None
    if found is None:
        return []
    inspection.attempt(check_orientation, found, source, reader)
    if found.different:
        image = found.different[0]
        inspection.refuse(
            f"{labels[image]} has {sizes[image]} pixels (height, width) but its image {image} "
            f"{reader.size(image)}{and_more(len(found.different))}; write the label map again"
        )
    maps = {image: read_labels(labels[image], counter.reader) for image in found.unsure[:32]}
    if fits_better_turned(reader, maps):
        inspection.refuse(
            f"{source.where}: {examples(maps)} have an EXIF orientation, and their label maps fit "
            f"the colours of the pixels better the other way: "
            f"{orientation_option(source, reader, next(iter(maps)))}"
        )
        found.unsure = []
    return note_doubts(found, source, reader)


def check_labels_learned(summary: SplitSummary, where: str) -> None:
    """Checks that label maps teach, or score, more than one class."""
    if summary.instances is not None or not summary.per_class or summary.sampled:
        return  # the label maps that were not read may have the other classes
    present = [name for name, share in summary.per_class.items() if share]
    if len(present) > 1:
        return
    what = f"all labelled pixels are of the class {present[0]!r}" if present else ""
    raise DatasetError(
        f"{where}: {what or 'no pixel has a label'}, so there is nothing to learn: 255 is ignored, "
        "not a class (of black and white masks write 1 for 255), as is 0 with "
        "reduce_zero_label=True"
    )
