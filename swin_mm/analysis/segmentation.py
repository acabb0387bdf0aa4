"""Where a segmentor goes wrong: by class, what for what, in which images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from swin_mm.analysis.predictions import PredictionError, by_image, to_numpy
from swin_mm.structures import IGNORED


@dataclass(frozen=True)
class SegmentationData:
    """Ground truth and predictions of a data set; label maps are read as they are needed."""

    classes: Sequence[str]
    image_paths: Sequence[str]
    truth: Sequence[Callable[[], np.ndarray]]  # reads the label map (H, W) of an image
    found: Sequence[np.ndarray]  # label maps (H, W)


def read_data(dataset: Any, entries: list[dict]) -> SegmentationData:
    """Joins predictions, as `load_predictions` gives them, with a `BaseSegDataset` in test mode."""
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    paths = [info["img_path"] for info in infos]
    if any("img_path" not in entry for entry in entries):
        raise PredictionError("the predictions are not those of a segmentor: no img_path")
    depth = _distinct_depth(paths)  # folders may be elsewhere, but files in two may share a name

    def end(path: str) -> Path:
        return Path(*Path(path).parts[-depth:])

    entries = by_image(entries, lambda entry: end(entry["img_path"]), [*map(end, paths)])
    loaders = [t for t in dataset.pipeline.transforms if hasattr(t, "_load_seg_map")]
    if not loaders:
        raise PredictionError("the test pipeline has no LoadAnnotations, so there is no truth")

    def load(info: dict) -> np.ndarray:
        # In the pipeline, images come first and leave this.
        return loaders[0].transform({**info, "seg_fields": []})["gt_seg_map"]

    readers = [partial(load, info) for info in infos]
    classes = dataset.metainfo["classes"]
    found = [_read_found(entry) for entry in entries]
    return SegmentationData(classes, paths, readers, found)


def _distinct_depth(paths: Sequence[str]) -> int:
    """Of how many parts, counted from the end, paths need to differ: 1 for the file names."""
    every, depth = {Path(path).parts for path in paths}, 1
    while len({parts[-depth:] for parts in every}) < len(every):
        depth += 1
    return depth


def _read_found(entry: dict) -> np.ndarray:
    if "labels" in entry:
        return to_numpy(entry["labels"])
    if "pred_sem_seg" in entry:  # as mmengine's own dump has it
        return to_numpy(entry["pred_sem_seg"]["data"]).squeeze(0)
    raise PredictionError("the predictions are not those of a segmentor: no labels")


def count_confusions(data: SegmentationData) -> tuple[np.ndarray, np.ndarray]:
    """Counts pixels by what they are and what they are taken for.

    Returns:
        `(classes, classes)`, pixels by true and predicted class; and `(images,)`, for each image
        the mean intersection over union of the classes that are in it or predicted in it.
    """
    count = len(data.classes)
    total = np.zeros((count, count), dtype=np.int64)
    qualities = []
    for path, read, found in zip(data.image_paths, data.truth, data.found, strict=True):
        truth = read()
        if truth.shape != found.shape:
            raise PredictionError(
                f"{path}: the prediction is {found.shape[0]} x {found.shape[1]} pixels, the label "
                f"map {truth.shape[0]} x {truth.shape[1]}"
            )
        own = confusion_matrix(truth, found, count)
        total += own
        qualities.append(mean_of_known(overlaps(own)))
    return total, np.array(qualities)


def confusion_matrix(truth: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Pixels by true and predicted class, `(count, count)`; 255 in the truth does not count."""
    labelled = truth != IGNORED
    truth, found = truth[labelled].astype(np.int64), found[labelled].astype(np.int64)
    for labels, what in ((truth, "ground truth"), (found, "predictions")):
        if labels.size and not 0 <= labels.min() <= labels.max() < count:
            raise PredictionError(
                f"labels of the {what} must be below {count}, got {labels.min()} to {labels.max()}"
            )
    return np.bincount(truth * count + found, minlength=count**2).reshape(count, count)


def overlaps(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, `(classes,)`; NaN where there is neither."""
    right = np.diag(matrix)
    with np.errstate(invalid="ignore"):
        return right / (matrix.sum(0) + matrix.sum(1) - right)


def class_overlaps(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a row for each class of a matrix of `count_confusions`; NaN where it is absent.

    Recall is the share of its pixels that are found, precision the share of the pixels predicted as
    it that are it.
    """
    right, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid="ignore"):
        columns = {
            "share of pixels": true / matrix.sum(),
            "IoU": overlaps(matrix),
            "recall": right / true,
            "precision": right / predicted,
        }
    return [
        {"class": name, **{key: float(column[k]) for key, column in columns.items()}}
        for k, name in enumerate(classes)
    ]


def mean_of_known(values: Sequence[float] | np.ndarray) -> float:
    """The mean without NaN; NaN where there is nothing else."""
    numbers = np.asarray(values, dtype=float)
    numbers = numbers[~np.isnan(numbers)]
    return float(numbers.mean()) if numbers.size else float("nan")
