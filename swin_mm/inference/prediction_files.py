"""Which image files are predicted, and the files that come of it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from swin_mm.datasets.picture import (
    MASK_OPACITY,
    Colour,
    draw_large,
    draw_large_map,
)
from swin_mm.engine.checkpoint_files import write_atomically
from swin_mm.inference.panoptic import to_categories, to_png, to_segments_info
from swin_mm.structures import IGNORED, Content, Objects, Run, Segments

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PICTURES, LABELS, SEGMENTS, SUMMARY = "pictures", "labels", "panoptic", "predictions.json"
# Larger pictures are drawn smaller: to be looked at, and in memory. The numbers keep their size.
MAX_PIXELS = 2048 * 2048
OUTLINE = 2  # pixels


class PredictError(ValueError):
    """Images that cannot be predicted; the message says why."""


def find_images(paths: Sequence[str], out: Path) -> dict[str, Path]:
    """Finds the images to predict.

    Args:
        paths: Images, and folders that are searched through for images.
        out: Where predictions go; pictures of an earlier run there are no images to predict.

    Returns:
        The images by name: relative to the folder that was named, without suffix.

    Raises:
        PredictError: There is none, or two would have the same name.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES and out not in file.parents
            )
            if not files:
                raise PredictError(
                    f"no images in {path}: no file below it ends in {', '.join(IMAGE_SUFFIXES)}"
                )
        elif path.is_file():
            files = [path]
        else:
            raise PredictError(f"there is no image or folder {path}")
        for file in files:
            name = file.relative_to(path if path.is_dir() else path.parent).with_suffix("")
            other = found.setdefault(name.as_posix(), file)
            if other != file:
                raise PredictError(
                    f"predictions of {other} and {file} would have the same name: predict them "
                    "one after the other, with another --out"
                )
    return found


class PredictionFiles:
    """Writes predictions to a folder: pictures, label maps, and all of it in one JSON file.

    Objects are written as COCO's annotations with a `score`, so the file serves as ground truth for
    labelling tools, and its `annotations` as results for COCO's evaluation. Classes are numbered
    from 1 there, as in most COCO files. Segments are written as COCO's panoptic annotations, and
    their numbers as PNG. Label maps are PNG whose values are indices of classes, counted from 0.

    Args:
        folder: Where the files go.
        classes: Names of the classes.
        palette: Colour of each class, RGB 0-255.
        draw: Whether to draw pictures.
        things: Of panoptic models, classes that are counted; None where that is not known.

    Attributes:
        maps: Name of the folder of PNG files; None where objects are written.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        palette: Sequence[Colour],
        draw: bool = True,
        things: Sequence[str] | None = None,
    ) -> None:
        self.folder, self.classes, self.palette, self.draw = folder, classes, palette, draw
        self.things = things
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.maps: str | None = None

    def add(self, name: str, path: Path, picture: np.ndarray, found: Content) -> None:
        """Writes the files of one image.

        Args:
            name: Names its files.
            path: The image.
            picture: The image to draw on, `(H, W, 3)`, uint8, RGB.
            found: What was predicted.
        """
        height, width = picture.shape[:2]
        entry = dict(id=len(self.images) + 1, file_name=str(path), height=height, width=width)
        if isinstance(found, Objects):
            self.annotations += [
                dict(id=len(self.annotations) + number, image_id=entry["id"], **annotation)
                for number, annotation in enumerate(_to_coco(found), start=1)
            ]
        elif isinstance(found, Segments):
            self.maps = SEGMENTS
            info = to_segments_info(found)
            file = f"{name}.png"
            self.annotations.append(dict(image_id=entry["id"], file_name=file, segments_info=info))
            _write_png(self.folder / SEGMENTS / file, to_png(found)[..., ::-1])  # OpenCV wants BGR
        else:
            self.maps = LABELS
            entry["label_map"] = f"{LABELS}/{name}.png"
            _write_labels(self.folder / entry["label_map"], found)
        self.images.append(entry)
        if self.draw:
            target = self.folder / PICTURES / f"{name}.png"
            draw_prediction(picture, found, target, self.classes, self.palette)

    def close(self) -> Path:
        """Writes the JSON file; returns its path."""
        content: dict = dict(images=self.images)
        if self.maps != LABELS:
            content["annotations"] = self.annotations
        if self.maps is None:
            content["categories"] = [
                dict(id=number, name=name) for number, name in enumerate(self.classes, start=1)
            ]
        elif self.maps == SEGMENTS:
            content["categories"] = to_categories(self.classes, self.palette, self.things)
        else:
            content["classes"] = [
                dict(label=label, name=name, colour=list(map(int, colour)))
                for label, (name, colour) in enumerate(zip(self.classes, self.palette, strict=True))
            ]
        path = self.folder / SUMMARY
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, ensure_ascii=False).encode())
        return path


def _to_coco(found: Objects) -> list[dict]:
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


def _write_labels(path: Path, labels: np.ndarray) -> None:
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    _write_png(path, labels.astype(kind))


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(".png", pixels)
    write_atomically(path, content.tobytes())


def draw_prediction(
    picture: np.ndarray,
    found: Content,
    path: Path,
    classes: Sequence[str],
    palette: Sequence[Colour],
) -> None:
    """Draws what was predicted in an image, at most four megapixels large.

    Below segments and label maps stands which colour is which class; segments have white borders.

    Args:
        picture: The image, `(H, W, 3)`, uint8, RGB.
        found: Objects, segments, or a label map `(H, W)`.
        path: Where the PNG goes; the folder is made if absent.
        classes: Names of the classes.
        palette: Colour of each class, RGB 0-255.
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
        draw_large_map(picture, labels, path, classes, palette)
        return
    if isinstance(found, np.ndarray):
        labels = cv2.resize(found.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
        draw_large_map(picture, labels, path, classes, palette)
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
