"""JPEGs of the size of COCO's with polygons, so that data loading can be measured without COCO."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from swin_mm.datasets.shapes.presets import CLASSES, PRESETS
from swin_mm.datasets.shapes.scene import Scene, draw_preset
from swin_mm.datasets.shapes.write import add_scene, new_coco

HEIGHT, WIDTH = 480, 640  # pixels, of most images of COCO
QUALITY = 95  # files of 120 KB, of COCO on the average 160
TOLERANCE = 0.7  # pixels by which a polygon may miss the border
MIN_AREA = 16  # pixels
PHOTO = replace(
    PRESETS["standard"], sides=(WIDTH,), shapes=(4, 16), radius=(16, 160), empty=0, noise=32
)


def write_photos(
    folder: str | Path,
    count: int,
    classes: Sequence[str] = CLASSES,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """Draws shapes as JPEGs of 480x640 pixels, with polygons as COCO has them and label maps.

    Writes `train/*.jpg`, `annotations/instances_train.json` and, for segmentors,
    `semantic/train/*.png` (0 is background). What is there already is left, if there are as many.

    Args:
        folder: Where; made if absent.
        count: Number of images.
        classes: Names of the categories; those of the shapes are the first six of them.
        advance: Called after each image.

    Returns:
        The folder.

    Raises:
        ValueError: There are to be no images or no classes.
    """
    if count < 1 or not classes:
        raise ValueError(f"at least one image and one class are needed, got {count=}, {classes=}")
    folder = Path(folder)
    annotations = folder / "annotations/instances_train.json"
    if _has(annotations, count, classes):
        return folder
    for part in ("train", "semantic/train", "annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    coco = new_coco("swin_mm shapes as photos", list(classes))
    for index in range(count):
        scene = _draw(index)
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        _write(folder / "train" / f"{index:06d}.jpg", scene.image[..., ::-1], jpeg)
        _write(folder / "semantic/train" / f"{index:06d}.png", scene.label_map(), [])
        add_scene(coco, scene, f"{index:06d}.jpg", _trace)
        advance()
    annotations.write_text(json.dumps(coco))  # last: without it the drawing is not complete
    return folder


def _has(annotations: Path, count: int, classes: Sequence[str]) -> bool:
    try:
        coco = json.loads(annotations.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    names = [category["name"] for category in coco["categories"]]
    return len(coco["images"]) == count and names == list(classes)


def _draw(index: int) -> Scene:
    scene = draw_preset(index, PHOTO)
    masks = scene.masks[:, :HEIGHT]
    shows = masks.sum((1, 2)) >= MIN_AREA  # not only below the edge
    return Scene(scene.image[:HEIGHT], masks[shows], scene.classes[shows])


def _write(path: Path, pixels: np.ndarray, settings: Sequence[int]) -> None:
    if not cv2.imwrite(str(path), pixels, list(settings)):
        raise OSError(f"cannot write {path}: is the disk full?")


def _trace(mask: np.ndarray) -> list[list[int]]:
    """Outlines of a mask's parts as `[x, y, x, y, ...]`; holes are filled."""
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    simple = [cv2.approxPolyDP(outline, TOLERANCE, closed=True) for outline in outlines]
    return [
        points.reshape(-1).tolist()
        for points in simple
        if len(points) >= 3 and cv2.contourArea(points) >= MIN_AREA
    ]
