"""Samples of a config's data as pictures: as the files have them, or as training sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement

from swin_mm.configs import bare_type
from swin_mm.datasets.bands import to_picture
from swin_mm.datasets.picture import Annotation
from swin_mm.datasets.reader import Reader
from swin_mm.structures import IGNORED, Objects, to_objects, to_pixels, to_runs

LONGEST = 640  # pixels; larger pictures gain nothing on a sheet


def build_dataset(cfg: Config, split: str, as_filed: bool = False) -> Any:
    """Builds the data set of the `train`, `val` or `test` data loader.

    With `as_filed`, the pipeline only loads, wrappers such as those that mix images are left out,
    and of several data sets the first is built.
    """
    init_default_scope(cfg.get("default_scope", "mmdet"))
    settings = cfg[f"{split}_dataloader"]["dataset"]
    if as_filed:
        while "dataset" in settings or "datasets" in settings:
            settings = settings["dataset"] if "dataset" in settings else settings["datasets"][0]
        loading = [t for t in settings.get("pipeline", ()) if bare_type(t).startswith("Load")]
        settings = {**settings, "pipeline": loading, "test_mode": True}
    return DATASETS.build(settings)


def read_sample(item: dict, is_bgr: bool = True) -> tuple[np.ndarray, Annotation | None]:
    """Turns what a data set's pipeline yields, packed or not, into a picture.

    Returns:
        The image `(H, W, 3)`, uint8, RGB, and its annotation if it has one that can be drawn.
    """
    if "inputs" in item:
        image = item["inputs"].numpy().transpose(1, 2, 0)  # (H, W, C)
        annotation = _read_packed(item["data_samples"])
    else:
        image = np.atleast_3d(item["img"])
        annotation = _read_loaded(item)
    if image.shape[2] in (3, 4) and is_bgr:
        image = image[..., 2::-1]
    if image.shape[2] in (1, 3) and image.min() >= 0 and image.max() <= 255:
        image = np.ascontiguousarray(image, dtype=np.uint8)
    return to_picture(image), annotation


def _read_packed(sample: BaseDataElement) -> Annotation | None:
    if "gt_instances" in sample and "bboxes" in sample.gt_instances:
        found = sample.gt_instances
        return to_objects(found.labels, found.bboxes, found.get("masks"))
    if "gt_sem_seg" in sample:
        return sample.gt_sem_seg.numpy().data.squeeze(0)  # (H, W)
    return None


def _read_loaded(results: dict) -> Annotation | None:
    if "gt_bboxes" in results:
        boxes, labels = results["gt_bboxes"], results["gt_bboxes_labels"]
        return to_objects(labels, boxes, results.get("gt_masks"))
    return results.get("gt_seg_map")


def shrink(
    image: np.ndarray, annotation: Annotation | None
) -> tuple[np.ndarray, Annotation | None]:
    """Makes a large picture small enough for a sheet; its annotation with it."""
    height, width = image.shape[:2]
    scale = LONGEST / max(height, width)
    if scale >= 1:
        return image, annotation
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if isinstance(annotation, Objects):
        masks = annotation.masks
        if masks is not None:
            masks = to_runs([_shrink_map(to_pixels(mask), size) for mask in masks])
        boxes = annotation.boxes * np.array([size[0] / width, size[1] / height] * 2)
        annotation = replace(annotation, boxes=boxes, masks=masks)
    elif annotation is not None:
        annotation = _shrink_map(annotation, size)
    return image, annotation


def _shrink_map(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)


def hide_unknown(annotation: Annotation | None, num_classes: int) -> Annotation | None:
    """Leaves out labels that are no class: a sheet of faulty data shows the rest."""
    if isinstance(annotation, np.ndarray):
        return np.where(annotation < num_classes, annotation, IGNORED)
    return annotation


def draw_evenly(
    dataset: BaseDataset, count: int, num_classes: int
) -> Iterator[tuple[np.ndarray, Annotation | None]]:
    """Yields at most `count` samples spread evenly over a data set, small enough for a sheet."""
    is_bgr = Reader.of(dataset).is_bgr
    for index in spread_evenly(len(dataset), count):
        image, annotation = read_sample(dataset[index], is_bgr)
        yield shrink(image, hide_unknown(annotation, num_classes))


def spread_evenly(total: int, count: int) -> Sequence[int]:
    """Chooses indices spread evenly over a range, its ends among them."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
