"""Instance masks as run lengths, for mmdet and for parts of an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swin_mm.structures import Run

Region = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right, bottom exclusive


class RunLengthMasks:
    """The masks of one image's instances; stands where mmdet has a `(N, H, W)` tensor.

    `CocoMetric` takes it as it is; mmdet's visualiser turns the masks it draws into pixels.

    Args:
        runs: One for each instance.
        height, width: Pixels of the image.
    """

    def __init__(self, runs: Sequence[Run], height: int, width: int) -> None:
        self.runs = list(runs)
        self.height, self.width = height, width

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, index: int | slice) -> "Run | RunLengthMasks":
        if isinstance(index, slice):
            return RunLengthMasks(self.runs[index], self.height, self.width)
        return self.runs[index]

    @staticmethod
    def cat(parts: "Sequence[RunLengthMasks]") -> "RunLengthMasks":
        """Joins the instances of parts of one image; `InstanceData` asks for it when indexed."""
        runs = [run for part in parts for run in part.runs]
        return RunLengthMasks(runs, parts[0].height, parts[0].width)

    def to_ndarray(self) -> np.ndarray:
        """Returns pixels, `(N, H, W)`, uint8."""
        masks = np.zeros((len(self), self.height, self.width), dtype=np.uint8)
        for mask, run in zip(masks, self.runs, strict=True):
            mask[:] = coco_mask.decode(run)
        return masks

    def astype(self, dtype: Any) -> np.ndarray:
        """Returns pixels, `(N, H, W)`, of a type; mmdet's visualiser asks for it."""
        return self.to_ndarray().astype(dtype)


@dataclass(frozen=True)
class MaskCrop:
    """A mask, cut to the pixels it covers.

    Attributes:
        left, top: Column and row of the crop in the image.
        run: The crop; a single pixel of background where the mask is empty.
    """

    left: int
    top: int
    run: Run

    @property
    def region(self) -> Region:
        """Where the crop lies in the image."""
        height, width = self.run["size"]
        return self.left, self.top, self.left + width, self.top + height

    def pixels(self, region: Region) -> np.ndarray:
        """The mask within a region that the crop contains, `(bottom - top, right - left)`."""
        left, top, right, bottom = region
        mask = coco_mask.decode(self.run)
        return mask[top - self.top : bottom - self.top, left - self.left : right - self.left]

    def in_image(self, height: int, width: int) -> Run:
        """The mask of the whole image, of which only the crop's columns are held as pixels."""
        crop = coco_mask.decode(self.run)
        columns = np.zeros((height, crop.shape[1]), dtype=np.int8)
        columns[self.top : self.top + len(crop)] = crop
        edges = np.flatnonzero(np.diff(columns.ravel(order="F"), prepend=0, append=0))
        counts = np.diff(self.left * height + edges, prepend=0, append=height * width).tolist()
        if not counts[-1]:  # the mask reaches the image's last pixel
            counts.pop()
        return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def crop_masks(
    masks: np.ndarray, left: int = 0, top: int = 0, scale: tuple[float, float] = (1, 1)
) -> list[MaskCrop]:
    """Cuts masks to what they cover.

    Args:
        masks: `(N, h, w)`, bool, of a part of an image.
        left, top: Column and row of that part in the image.
        scale: Pixels of the image for one of that part, across and down.
    """
    crops = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(rows):
            y, x = rows[0], columns[0]
            crop = mask[y : rows[-1] + 1, x : columns[-1] + 1].astype(np.uint8)
        else:
            y, x, crop = 0, 0, np.zeros((1, 1), dtype=np.uint8)
        if scale != (1, 1):
            crop, x, y = _enlarge(crop, x, y, scale)
        run = coco_mask.encode(np.asfortranarray(crop))
        crops.append(MaskCrop(left + int(x), top + int(y), run))
    return crops


def _enlarge(
    mask: np.ndarray, left: int, top: int, scale: tuple[float, float]
) -> tuple[np.ndarray, int, int]:
    """Enlarges a crop and rounds its borders to pixels; returns it and its new left and top."""
    height, width = mask.shape
    across, down = scale
    x, y = round(left * across), round(top * down)
    size = (round((left + width) * across) - x, round((top + height) * down) - y)
    smooth = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    return (smooth >= 0.5).astype(np.uint8), x, y


def overlap(first: Region, second: Region) -> Region | None:
    """Returns what two regions have in common, or None."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return (left, top, right, bottom) if left < right and top < bottom else None
