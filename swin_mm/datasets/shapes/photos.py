"""JPEGs of the size of COCO's with polygons, so that data loading can be measured without COCO."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from swin_mm.datasets.shapes.presets import CLASSES, PRESETS
from swin_mm.datasets.shapes.scene import Scene, draw_preset

HEIGHT, WIDTH = 480, 640  # pixels, of most images of COCO
QUALITY = 95  # files of 120 KB, of COCO on the average 160
TOLERANCE = 0.7  # pixels by which a polygon may miss the border
MIN_AREA = 16  # pixels
PHOTO = replace(
    PRESETS["standard"],
    train=0,
    val=0,
    sides=(WIDTH,),
    shapes=(4, 16),
    radius=(16, 160),
    empty=0,
    noise=32,
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
    coco = {
        "info": {"description": "swin_mm shapes as photos"},
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
    }
    for index in range(count):
        scene = _draw(index)
        image, labels = (folder / part / f"{index:06d}" for part in ("train", "semantic/train"))
        # Not with_suffix: OpenCV chooses the format by the name's end.
        _write(f"{image}.jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        _write(f"{labels}.png", scene.label_map())
        _add(coco, scene, f"{index:06d}.jpg", len(classes))
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


def _write(path: str, pixels: np.ndarray, settings: Sequence[int] = ()) -> None:
    if not cv2.imwrite(path, pixels, list(settings)):
        raise OSError(f"cannot write {path}: is the disk full?")


def _add(coco: dict, scene: Scene, file_name: str, num_classes: int) -> None:
    """Appends a scene to a COCO annotation dictionary, masks as polygons."""
    image_id = len(coco["images"]) + 1
    coco["images"].append(
        {"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH}
    )
    for mask, label, box in zip(scene.masks, scene.classes, scene.boxes(), strict=True):
        polygons = _trace(mask)
        if not polygons:
            continue
        left, top, right, bottom = box.tolist()
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": int(label) % num_classes + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": polygons,
            }
        )


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
