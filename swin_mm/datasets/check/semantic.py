"""Checks images and label maps for semantic segmentation."""

import os
import time

import numpy as np
from PIL import Image

from swin_mm.datasets.check.images import check_present, check_whole, image_size, spread
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples

LABEL_MAPS = 256  # read whole, evenly over the data set


def check_semantic(source: Source, seconds: float, labelled: bool = True) -> SplitSummary:
    """Checks a data set that mmseg reads as `BaseSegDataset` does.

    Args:
        source: The data set.
        seconds: Time limit for looking into images, and again for label maps.
        labelled: Whether label maps are required; a test set may come without.

    Raises:
        DatasetError: Anything that training or testing would fail on, or silently get wrong.
    """
    if source.is_remote():
        return SplitSummary(warnings=[f"{source.where}: files on a server are not checked"])
    classes = source.classes()
    if not classes:
        raise DatasetError(
            f"{source.where}.metainfo.classes is not set: write the names of the classes, in the "
            "order of the values in the label maps"
        )
    names = _list_names(source)
    suffix = source.argument("img_suffix") or ""
    images = [os.path.join(source.prefix("img_path"), name + suffix) for name in names]
    check_present(images, source.where)
    notes = [check_whole(images, source.where, seconds)]
    summary = SplitSummary(images=len(images))
    if labelled or (source.settings.get("data_prefix") or {}).get("seg_map_path"):
        folder = source.prefix("seg_map_path")
        ending = source.argument("seg_map_suffix") or ""
        labels = [os.path.join(folder, name + ending) for name in names]
        check_present(labels, source.where, "label map")
        notes.append(check_whole(labels, source.where, seconds, "label map"))
        notes.append(_note_unused(folder, ending, labels))
        _check_zero_label(source)
        summary = _check_values(source, images, labels, seconds)
    summary.warnings += [note for note in notes if note]
    return summary


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
    source: Source, images: list[str], labels: list[str], seconds: float
) -> SplitSummary:
    """Reads label maps, as many as the limits allow, and counts the pixels of each class."""
    classes, ignore = source.classes(), source.argument("ignore_index")
    label_map = _label_map(source)
    counts = np.zeros(len(classes) + 1, dtype=np.int64)  # the last for ignored pixels
    deadline = time.monotonic() + seconds
    read = empty = 0
    for index in spread(len(labels))[:LABEL_MAPS]:
        if time.monotonic() > deadline and read:
            break
        raw = _read_labels(labels[index])
        if raw.shape != image_size(images[index]):
            raise DatasetError(
                f"{labels[index]} has {raw.shape} pixels (height, width) but its image "
                f"{images[index]} {image_size(images[index])}; write the label map anew"
            )
        values, pixels = np.unique(raw, return_counts=True)
        trained = _as_trained(values, source, label_map)
        ignored = trained == ignore
        wrong = ~ignored & ((trained < 0) | (trained >= len(classes)))
        if wrong.any():
            raise DatasetError(_describe_wrong(labels[index], values[wrong], source))
        np.add.at(counts, np.where(ignored, len(classes), trained), pixels)
        empty += bool(ignored.all())
        read += 1
    shares = counts[:-1] / max(1, counts[:-1].sum())
    summary = SplitSummary(images=len(images), empty=empty)
    summary.per_class = dict(zip(classes, shares.tolist(), strict=True))
    absent = [name for name, share in summary.per_class.items() if not share]
    if absent:
        summary.warnings.append(
            f"{source.where}: no pixel of {examples(absent)} in the {read} label maps read; "
            f"{counts[-1] / counts.sum():.0%} of all pixels are ignored (value {ignore})"
        )
    return summary


def _read_labels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        labels = np.array(image)  # of a palette picture the indices, as mmseg reads them
    if labels.ndim != 2:
        raise DatasetError(
            f"{path} is a colour picture of shape {labels.shape}: a label map has one channel, "
            "whose values are indices of classes; convert it"
        )
    return labels.astype(np.int64)


def _label_map(source: Source) -> dict[int, int]:
    """Returns mmseg's renumbering for configs that choose some of a data set's own classes."""
    try:
        return source.cls.get_label_map(source.classes()) or {}
    except ValueError as error:
        raise DatasetError(f"{source.where}.metainfo.classes: {error}") from None


def _as_trained(values: np.ndarray, source: Source, label_map: dict[int, int]) -> np.ndarray:
    """Turns values of the file into labels as mmseg's `LoadAnnotations` does."""
    if source.argument("reduce_zero_label"):
        values = np.where((values == 0) | (values == 255), 255, values - 1)
    return np.array([label_map.get(int(value), int(value)) for value in values])


def _describe_wrong(path: str, values: np.ndarray, source: Source) -> str:
    count, ignore = len(source.classes()), source.argument("ignore_index")
    reduced = bool(source.argument("reduce_zero_label"))
    first, last = (1, count) if reduced else (0, count - 1)
    remedy = "correct the label map, or metainfo.classes"
    if not reduced and values.tolist() == [count]:
        remedy = (
            f"if values start at 1 and 0 is to be ignored, --cfg-options "
            f"{source.where}.reduce_zero_label=True"
        )
    return (
        f"{source.where}: {path} has the values {examples(values.tolist())}, but {count} classes "
        f"are {first} to {last} (and {ignore} is ignored); {remedy}"
    )
