"""What a model finds in an image, for Python and for notebooks."""

import io
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swin_mm.datasets.panoptic import to_segments_info
from swin_mm.datasets.picture import (
    MASK_OPACITY,
    Colour,
    draw_large,
)
from swin_mm.structures import IGNORED, Content, Objects, Run, Segments, to_pixels

if TYPE_CHECKING:
    from supervision import Detections

# Larger pictures are drawn smaller: to be looked at, and in memory. The numbers keep their size.
MAX_PIXELS = 2048 * 2048
OUTLINE = 2  # pixels


class Prediction:
    """What a model finds in one image.

    Args:
        content: Objects, segments, or a label map `(H, W)`.
        image: The image, `(H, W, 3)`, uint8, RGB.
        classes: Names of the classes.
        palette: Colour of each class, RGB 0-255.
        name: What the image is called.

    Attributes:
        boxes: `(N, 4)`, float32: left, top, right, bottom in pixels; None without objects.
        scores: `(N,)`, float32, 0 to 1, falling; None without objects.
        labels: `(N,)`, int64: classes of objects or segments; None for a label map.
        label_map: `(H, W)`, class of each pixel, 255 for none; None for objects.
        segments: Numbers and classes of the segments of a panoptic model, else None.
    """

    def __init__(
        self,
        content: Content,
        image: np.ndarray,
        classes: Sequence[str],
        palette: Sequence[Colour],
        name: str = "image",
    ) -> None:
        self.content, self.image, self.name = content, image, name
        self.classes, self.palette = tuple(classes), palette
        objects = content if isinstance(content, Objects) else None
        self.boxes = objects.boxes if objects else None
        self.scores = objects.scores if objects else None
        self.segments = content if isinstance(content, Segments) else None
        self.labels = None if isinstance(content, np.ndarray) else content.labels

    @cached_property
    def masks(self) -> np.ndarray | None:
        """Masks of the objects or segments, `(N, H, W)`, bool; None where there are none."""
        if self.segments is not None:
            return self.segments.ids == np.arange(1, len(self.segments) + 1)[:, None, None]
        if not isinstance(self.content, Objects) or self.content.masks is None:
            return None
        shape = (len(self), *self.image.shape[:2])
        return np.array([*map(to_pixels, self.content.masks)], bool).reshape(shape)

    @cached_property
    def label_map(self) -> np.ndarray | None:
        """Class of each pixel."""
        if self.segments is not None:
            return self.segments.label_map()
        return self.content if isinstance(self.content, np.ndarray) else None

    @property
    def names(self) -> list[str]:
        """Class of each object or segment, by name; for a label map the classes that occur."""
        labels = self.labels
        if labels is None:
            labels = np.unique(np.asarray(self.label_map))
        return [self.classes[label] for label in labels if label != IGNORED]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        counts = Counter(self.names)
        if self.labels is None:
            text = ", ".join(counts)
        else:
            text = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        return f"Prediction({self.name}: {text or 'nothing'})"

    def plot(self) -> np.ndarray:
        """Draws what was found on the image.

        Returns:
            `(h, w, 3)`, uint8, RGB; images over four megapixels smaller, and below segments and
            label maps which colour is which class.
        """
        content = np.frombuffer(self._repr_png_(), dtype=np.uint8)
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))[..., ::-1]

    def save(self, path: str | Path) -> Path:
        """Writes the picture of `plot` as its suffix says; returns the path.

        Raises:
            ValueError: OpenCV does not write files of this suffix.
            OSError: The file cannot be written.
        """
        path = Path(path)
        write_picture(path, self.plot())
        return path

    def to_coco(self) -> list[dict[str, Any]]:
        """Annotations in COCO's format: objects with a `score`, or `segments_info`.

        Classes are numbered from 1, as in most COCO files.

        Raises:
            ValueError: A label map has no such form.
        """
        if self.segments is not None:
            return to_segments_info(self.segments)
        if not isinstance(self.content, Objects):
            raise ValueError("a label map has no objects; use label_map")
        return objects_to_coco(self.content)

    def to_supervision(self) -> "Detections":
        """Gives `supervision.Detections`, with class names as `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
            ValueError: A label map has no objects.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise ImportError("to_supervision needs a package: pip install supervision") from error
        if self.labels is None:
            raise ValueError("a label map has no objects; use label_map")
        boxes = self.boxes
        if boxes is None and self.segments is not None:
            info = [entry["bbox"] for entry in to_segments_info(self.segments)]
            corners = np.array(info, dtype=np.float32).reshape(-1, 4)
            boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], axis=1)
        return Detections(
            xyxy=np.asarray(boxes, dtype=np.float32),
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array(self.names)},
        )

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        draw_prediction(self.image, self.content, file, self.classes, self.palette)
        return file.getvalue()


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a picture `(h, w, 3)`, uint8, RGB; errors are those of `Prediction.save`."""
    if not cv2.haveImageWriter(str(path)):
        raise ValueError(f"cannot write {path}: use a suffix such as .png or .jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    # `cv2.imwrite` says by False alone that it has written nothing.
    _, content = cv2.imencode(path.suffix, picture[..., ::-1])
    path.write_bytes(content.tobytes())


def objects_to_coco(found: Objects) -> list[dict[str, Any]]:
    """COCO's annotations of objects, without `id` and `image_id`."""
    annotations = []
    assert found.boxes is not None and found.scores is not None
    for index, (left, top, right, bottom) in enumerate(found.boxes.astype(float).tolist()):
        box = [round(side, 2) for side in (left, top, right - left, bottom - top)]
        annotation = dict(
            category_id=int(found.labels[index]) + 1,
            bbox=box,
            area=round(box[2] * box[3], 2),
            iscrowd=0,
            score=round(float(found.scores[index]), 4),
        )
        if found.masks is not None:
            run = found.masks[index]
            annotation["area"] = int(coco_mask.area(run))
            annotation["segmentation"] = dict(run, counts=run["counts"].decode())
        annotations.append(annotation)
    return annotations


def draw_prediction(
    picture: np.ndarray,
    found: Content,
    path: str | Path | BinaryIO,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> None:
    """Draws what was predicted in an image, at most four megapixels large; see `draw_large`.

    Below segments and label maps stands which colour is which class; segments have white borders.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, math.sqrt(MAX_PIXELS / (height * width)))
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    if scale < 1:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if isinstance(found, Segments):
        segments = found.resize(size)
        labels, borders = segments.label_map(), segments.borders()
        labels[borders] = IGNORED
        picture = np.where(borders[..., None], np.uint8(255), picture)
        draw_large(picture, labels, path, classes, palette, legend=True)
        return
    if isinstance(found, np.ndarray):
        labels = cv2.resize(found.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
        draw_large(picture, labels, path, classes, palette, legend=True)
        return
    picture = picture.copy()
    # The surest go on top.
    for index, mask in reversed(list(enumerate(found.masks if found.masks is not None else ()))):
        _tint(picture, mask, palette[found.labels[index]], scale)
    boxes = None if found.boxes is None else found.boxes * scale
    shown = Objects(labels=found.labels, boxes=boxes, scores=found.scores)
    draw_large(picture, shown, path, classes, palette)


def _tint(picture: np.ndarray, run: Run, colour: Colour, scale: float) -> None:
    """Colours a mask in place; touches no more of the picture than the mask covers."""
    left, top, width, height = coco_mask.toBbox(run).astype(int)
    if not width:
        return
    mask = coco_mask.decode(run)[top : top + height, left : left + width]
    x, y = round(scale * left), round(scale * top)
    if scale < 1:
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    part = picture[y : y + mask.shape[0], x : x + mask.shape[1]]
    mask = mask[: part.shape[0], : part.shape[1]]
    shade = np.array(colour, dtype=np.float32)
    mixed = (1 - MASK_OPACITY) * part + MASK_OPACITY * shade
    part[:] = np.where(mask[..., None] > 0, mixed, part).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, [int(c) for c in colour], OUTLINE, offset=(x, y))
