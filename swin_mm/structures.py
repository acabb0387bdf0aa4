"""What is in an image, as annotated or as predicted: objects, segments, or a label map."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

IGNORED = 255  # in label maps: no label
# One mask as pycocotools writes it: `{"size": [H, W], "counts": bytes}`, pixels counted down the
# columns. A thousand masks of a large image do not fit in memory as pixels.
Run = dict[str, Any]


@dataclass(frozen=True)
class Objects:
    """Objects of one image.

    Attributes:
        labels: `(N,)`, indices into the class names.
        boxes: `(N, 4)`, left, top, right, bottom in pixels, or None.
        scores: `(N,)`, 0 to 1; None for ground truth.
        masks: Run lengths of each mask in the image, or None.
        is_crowd: `(N,)`, ground truth that stands for any number of objects; None if none does.
    """

    labels: np.ndarray
    boxes: np.ndarray | None = None
    scores: np.ndarray | None = None
    masks: Sequence[Run] | None = None
    is_crowd: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> "Objects":
        """Returns some of them, by their numbers or by a mask `(N,)`, bool."""
        arrays = {
            name: values[index]
            for name in ("labels", "boxes", "scores", "is_crowd")
            if (values := getattr(self, name)) is not None
        }
        if self.masks is not None:
            arrays["masks"] = [self.masks[number] for number in np.arange(len(self))[index]]
        return replace(self, **arrays)


def to_objects(labels: Any, boxes: Any, masks: Any = None, scores: Any = None) -> Objects:
    """Takes over objects from tensors, arrays, or mmdet's own boxes and masks."""
    if masks is not None:
        masks = masks.to_ndarray() if hasattr(masks, "to_ndarray") else masks
        masks = masks.runs if hasattr(masks, "runs") else to_runs(_to_array(masks))
    labels, boxes = _to_array(labels), _to_array(getattr(boxes, "tensor", boxes))
    return Objects(labels, boxes, None if scores is None else _to_array(scores), masks)


def _to_array(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def to_runs(masks: Iterable[np.ndarray]) -> list[Run]:
    """Run lengths of masks `(N, H, W)`, bool or 0 and 1."""
    return [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]


def to_pixels(run: Run) -> np.ndarray:
    """Pixels of a mask, `(H, W)`, bool."""
    return coco_mask.decode(run).astype(bool)


@dataclass(frozen=True)
class Segments:
    """Segments of one image, each pixel in one at most.

    Attributes:
        ids: `(H, W)`, int32: numbers of segments from 1 on; 0 is none.
        labels: `(N,)`, int64: class of segment 1, 2 and so on, index into the class names.
    """

    ids: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def label_map(self) -> np.ndarray:
        """Classes of pixels, `(H, W)`, int64; 255 is none."""
        return np.append(IGNORED, self.labels)[self.ids]

    def borders(self) -> np.ndarray:
        """Pixels at the border of another segment, `(H, W)`, bool."""
        found = np.zeros(self.ids.shape, dtype=bool)
        found[:, 1:] |= self.ids[:, 1:] != self.ids[:, :-1]
        found[1:] |= self.ids[1:] != self.ids[:-1]
        return found

    def resize(self, size: tuple[int, int]) -> "Segments":
        """The same in other pixels; `size` is `(width, height)`."""
        ids = cv2.resize(self.ids, size, interpolation=cv2.INTER_NEAREST)
        return Segments(ids, self.labels)


def read_segments(found: Any, num_classes: int) -> Segments:
    """Reads what mmdet's panoptic heads predict.

    Args:
        found: `pred_panoptic_seg`: `sem_seg` `(1, H, W)`, of each pixel its class plus 1000 times
            the number of the object, and class `num_classes` or `ignore_index` where there is none.
        num_classes: Number of classes.

    Returns:
        The segments, numbered in the order of mmdet's numbers.
    """
    pixels = found.sem_seg.squeeze(0).cpu().numpy()  # (H, W)
    numbers, places = np.unique(pixels, return_inverse=True)
    labels = numbers % 1000  # mmdet's INSTANCE_OFFSET
    is_segment = (labels < num_classes) & (labels != found.get("ignore_index", num_classes))
    new = np.where(is_segment, np.cumsum(is_segment), 0).astype(np.int32)
    return Segments(new[places].reshape(pixels.shape), labels[is_segment].astype(np.int64))


# What is known of an image; the last is a label map (H, W), indices of classes.
Content = Objects | Segments | np.ndarray
