"""Checks images and label maps for semantic segmentation."""

import os
import time

import numpy as np

from swin_mm.datasets.check.images import check_present, spread
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.label_maps import (
    LabelError,
    check_class_count,
    count_labels,
    label_reader,
    read_labels,
)
from swin_mm.datasets.check.sizes import (
    check_orientation,
    compare_sizes,
    fits_better_turned,
    note_depth,
    note_unsure,
    orientation_option,
)
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples
from swin_mm.datasets.progress import show_progress


def check_semantic(source: Source, inspection: Inspection, labelled: bool = True) -> SplitSummary:
    """Checks a data set that mmseg reads as `BaseSegDataset` does.

    Args:
        source: The data set.
        inspection: How closely to look.
        labelled: Whether label maps are required; a test set may come without.

    Raises:
        DatasetError: Anything that training or testing would fail on, or silently get wrong, as far
            as the inspection does not keep it.
    """
    if source.is_remote():
        return SplitSummary(warnings=[f"{source.where}: files on a server are not checked"])
    classes = source.classes()
    if not classes:
        raise DatasetError(
            f"{source.where}.metainfo.classes is not set: write the names of the classes, in the "
            "order of the values in the label maps"
        )
    reduced = bool(source.argument("reduce_zero_label"))
    inspection.attempt(check_class_count, len(classes), reduced, source.where)
    names = inspection.attempt(_list_names, source)
    if names is None:
        return SplitSummary()
    suffix = source.argument("img_suffix") or ""
    images = [os.path.join(source.prefix("img_path"), name + suffix) for name in names]
    inspection.attempt(check_present, images, source.where)
    notes = [inspection.look_into(_there(images, inspection), source.where, source.reader())]
    summary = SplitSummary(images=len(images))
    if labelled or (source.settings.get("data_prefix") or {}).get("seg_map_path"):
        folder = source.prefix("seg_map_path")
        ending = source.argument("seg_map_suffix") or ""
        labels = [os.path.join(folder, name + ending) for name in names]
        inspection.attempt(check_present, labels, source.where, "label map")
        there = _there(labels, inspection)
        notes.append(inspection.look_into(there, source.where, label_reader(source), "label map"))
        if not source.argument("ann_file"):  # a list takes a part of a folder on purpose
            notes.append(_note_unused(folder, ending, labels))
        inspection.attempt(_check_zero_label, source)
        pairs = [
            pair for pair in zip(images, labels, strict=True) if _can_compare(pair, inspection)
        ]
        summary = _check_values(source, pairs, inspection)
        summary.images = len(images)
    summary.warnings += [note for note in notes if note]
    return summary


def _there(paths: list[str], inspection: Inspection) -> list[str]:
    """Leaves out what was found missing; a check that has gone on stands before it."""
    return [p for p in paths if os.path.isfile(p)] if inspection.thorough else paths


def _can_compare(pair: tuple[str, str], inspection: Inspection) -> bool:
    return not inspection.thorough or all(
        os.path.isfile(path) and path not in inspection.unreadable for path in pair
    )


def _list_names(source: Source) -> list[str]:
    """Lists the images, without suffix: those of `ann_file`, else all in their folder."""
    ann_file = source.argument("ann_file")
    if ann_file and not os.path.isdir(source.path(ann_file)):
        path = source.path(ann_file)
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
    files = _walk(folder)
    names = sorted(file.removesuffix(suffix) for file in files if file.endswith(suffix))
    if not names:
        endings = sorted({os.path.splitext(file)[1] for file in files}) or ["nothing"]
        raise DatasetError(
            f"{source.where}: no file in {folder} ends in {suffix!r} (there is {examples(endings)})"
            f": --cfg-options {source.where}.img_suffix=SUFFIX"
        )
    return names


def _walk(folder: str) -> list[str]:
    """Lists all files below a folder, relative to it."""
    return [
        os.path.relpath(os.path.join(parent, file), folder)
        for parent, _, files in os.walk(folder)
        for file in files
    ]


def _note_unused(folder: str, suffix: str, used: list[str]) -> str | None:
    unused = {file for file in _walk(folder) if file.endswith(suffix)}
    unused -= {os.path.relpath(path, folder) for path in used}
    if not unused:
        return None
    return f"{folder}: {len(unused)} label maps have no image: {examples(sorted(unused))}"


def _check_zero_label(source: Source) -> None:
    """Checks that data set and pipeline agree; mmseg asserts it at the first image."""
    loading = source.transform("LoadAnnotations") or {}
    stated = loading.get("reduce_zero_label")
    reduced = bool(source.argument("reduce_zero_label"))
    if stated is not None and stated != reduced:
        raise DatasetError(
            f"{source.where} has reduce_zero_label={reduced} but LoadAnnotations in its pipeline "
            f"{stated}; leave it out of the pipeline"
        )


def _check_values(
    source: Source, pairs: list[tuple[str, str]], inspection: Inspection
) -> SplitSummary:
    """Reads label maps, as many as the limits allow, and counts the pixels of each class.

    Args:
        source: The data set.
        pairs: Image and label map.
        inspection: How closely to look.
    """
    classes, ignored = source.classes(), inspection.ignored
    label_map = inspection.attempt(_label_map, source) or {}
    reader = label_reader(source)
    counts = np.zeros(len(classes) + 1, dtype=np.int64)  # the last for ignored pixels
    deadline = time.monotonic() + inspection.seconds
    chosen = spread(len(pairs))[: int(min(inspection.label_maps, len(pairs)))]
    faults: dict[str, list[str]] = {}
    sizes: dict[str, tuple[int, int]] = {}  # of the label map, by image
    empty, read = [], 0
    with show_progress(f"{source.where}: labels", len(chosen)) as advance:
        for image, label in (pairs[index] for index in chosen):
            if time.monotonic() > deadline and read:
                break
            try:
                found, sizes[image] = count_labels(label, reader, source, label_map, ignored)
            except LabelError as error:
                faults.setdefault(error.kind, []).append(str(error))
                if not inspection.thorough:
                    break
            else:
                counts += found
                empty += [os.path.basename(label)] if not found[:-1].any() else []
            read += 1
            advance(1)
    for texts in faults.values():
        more = f" (and {len(texts) - 1} more label maps like it)" if len(texts) > 1 else ""
        inspection.refuse(texts[0] + more)
    shares = counts[:-1] / max(1, counts[:-1].sum())
    summary = SplitSummary(images=len(pairs), empty=len(empty), sampled=read < len(pairs))
    summary.warnings += _compare_sizes(sizes, dict(pairs), source, inspection)
    summary.per_class = dict(zip(classes, shares.tolist(), strict=True))
    absent = [name for name, share in summary.per_class.items() if not share]
    if absent and read:
        # Values that start at 0 lose their first class then, and never reach the last.
        hint = "; if value 0 is a class, set reduce_zero_label=False"
        is_suspect = source.argument("reduce_zero_label") and classes[-1] in absent
        summary.warnings.append(
            f"{source.where}: no pixel of {examples(absent)} in the {read} label maps read; "
            f"{counts[-1] / max(1, counts.sum()):.0%} of all pixels are ignored (value {ignored})"
            f"{hint if is_suspect else ''}"
        )
    if empty and inspection.thorough:
        summary.warnings.append(
            f"{source.where}: {len(empty)} label maps have no labelled pixel: {examples(empty)}"
        )
    return summary


def _compare_sizes(
    sizes: dict[str, tuple[int, int]],
    labels: dict[str, str],
    source: Source,
    inspection: Inspection,
) -> list[str]:
    """Compares images as they are loaded with their label maps; returns warnings.

    Args:
        sizes: Image to the height and width of its label map.
        labels: Image to its label map.
        source: The data set.
        inspection: How closely to look.
    """
    reader = source.reader()
    if not reader.can_check:
        return []
    found = inspection.attempt(compare_sizes, reader, sizes)
    if found is None:
        return []
    inspection.attempt(check_orientation, found, source, reader)
    if found.different:
        image = found.different[0]
        more = f" (and {len(found.different) - 1} more like it)" * (len(found.different) > 1)
        inspection.refuse(
            f"{labels[image]} has {sizes[image]} pixels (height, width) but its image {image} "
            f"{reader.size(image)}{more}; write the label map anew"
        )
    maps = {image: read_labels(labels[image], label_reader(source)) for image in found.unsure[:32]}
    if fits_better_turned(reader, maps):
        inspection.refuse(
            f"{source.where}: {examples(maps)} have an EXIF orientation, and their label maps fit "
            f"the colours of the pixels better the other way: "
            f"{orientation_option(source, reader, next(iter(maps)))}"
        )
        return note_depth(found, source, reader)
    return note_unsure(found, source, reader) + note_depth(found, source, reader)


def check_labels_learned(summary: SplitSummary, where: str) -> None:
    """Checks that label maps teach, or score, more than one class.

    Args:
        summary: Of all data sets of a loader.
        where: The loader, for the message.

    Raises:
        DatasetError: All labelled pixels are of one class, or there are none.
    """
    if summary.instances is not None or not summary.per_class or summary.sampled:
        return  # the label maps that were not read may have the other classes
    present = [name for name, share in summary.per_class.items() if share]
    if len(present) > 1:
        return
    what = (
        f"all labelled pixels are of the class {present[0]!r}"
        if present
        else "no pixel has a label"
    )
    raise DatasetError(
        f"{where}: {what}, so there is nothing to learn: 255 is ignored, not a class (of black and "
        "white masks write 1 for 255), as is 0 with reduce_zero_label=True"
    )


def _label_map(source: Source) -> dict[int, int]:
    """Returns mmseg's renumbering for configs that choose some of a data set's own classes."""
    try:
        return source.cls.get_label_map(source.classes()) or {}
    except ValueError as error:
        raise DatasetError(f"{source.where}.metainfo.classes: {error}") from None
