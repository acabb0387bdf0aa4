"""Detections of a whole data set as arrays, and as the lists that COCO's tools take."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.fileio import dump, put_text


@dataclass(frozen=True)
class Detections:
    """All detections of a data set, images one after another.

    Attributes:
        image_ids: Of each detection.
        boxes: `(N, 4)`, float64: left, top, width, height in pixels.
        scores: Of the boxes.
        mask_scores: Of the masks.
        category_ids: As the annotations number them.
        masks: Run lengths as pycocotools writes them, counts as text; None without masks.
    """

    image_ids: list[int]
    boxes: np.ndarray
    scores: np.ndarray
    mask_scores: np.ndarray
    category_ids: np.ndarray
    masks: list[dict] | None

    @classmethod
    def gather(cls, results: Sequence[dict], category_ids: Sequence[int]) -> "Detections":
        """Joins what mmdet's `CocoMetric` keeps of each image; `category_ids` are of the labels."""
        counts = [len(result["labels"]) for result in results]
        corners = np.concatenate([result["bboxes"].reshape(-1, 4) for result in results])
        # float64 before the difference, as Python's numbers are.
        corners = corners.astype(np.float64)
        # Some heads give an image without detections labels of float.
        labels = np.concatenate([result["labels"] for result in results]).astype(np.int64)
        ids = (result.get("img_id", index) for index, result in enumerate(results))
        return cls(
            image_ids=list(itertools.chain.from_iterable(map(itertools.repeat, ids, counts))),
            boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
            scores=np.concatenate([result["scores"] for result in results]).astype(np.float64),
            mask_scores=np.concatenate(
                [result.get("mask_scores", result["scores"]) for result in results]
            ).astype(np.float64),
            category_ids=np.asarray(category_ids)[labels],
            masks=_join_masks(results, counts) if "masks" in results[0] else None,
        )

    def box_list(self) -> list[dict]:
        """Returns what a COCO file of boxes holds."""
        columns = {"image_id": self.image_ids, "bbox": self.boxes, "score": self.scores}
        return _dicts({**columns, "category_id": self.category_ids})

    def mask_list(self, with_boxes: bool = True) -> list[dict]:
        """Returns what a COCO file of masks holds.

        COCO takes an instance for as large as its box where there are boxes.
        """
        columns: dict[str, Any] = {"image_id": self.image_ids}
        columns |= {"bbox": self.boxes} if with_boxes else {}
        columns |= {"score": self.mask_scores, "category_id": self.category_ids}
        return _dicts(columns | {"segmentation": self.masks})


def write_json(entries: list[dict], path: str) -> None:
    """Writes entries as `mmengine.dump` does with a path, only that goes number by number."""
    put_text(dump(entries, file_format="json"), path)


def _join_masks(results: Sequence[dict], counts: Sequence[int]) -> list[dict]:
    """Masks of all images, their counts as text."""
    masks: list[dict] = []
    for result, count in zip(results, counts, strict=True):
        # Not all that stands where a list does ends by itself when it is gone through.
        masks.extend(result["masks"][index] for index in range(count))
    for mask in masks:
        if isinstance(mask["counts"], bytes):
            mask["counts"] = mask["counts"].decode()
    return masks


def _dicts(columns: dict[str, Any]) -> list[dict]:
    """A dict for each row of columns."""
    values = (c.tolist() if isinstance(c, np.ndarray) else c for c in columns.values())
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
