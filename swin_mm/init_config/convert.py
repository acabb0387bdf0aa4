"""Reads YOLO labels, Pascal VOC and labelme files as COCO annotations.

Own readers, as polygons stay exact, `difficult` objects of VOC are kept apart, only headers of
images are read and an error names its line: supervision turns polygons into masks and back, and
keeps the masks of all images in memory.
"""

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from swin_mm.datasets.reader import Reader
from swin_mm.init_config.options import InitConfigError

OUTSIDE = 0.01  # that a YOLO coordinate may lie outside of the image by rounding
LEAST_POINTS = {"rectangle": 2, "polygon": 3}  # by labelme's shape_type; others are no areas
VOC_SIDES = ("xmin", "ymin", "xmax", "ymax")


class Thing(NamedTuple):
    """An object of an image, in pixels."""

    name: str
    outline: list[list[float]]  # polygons, `[x, y, x, y, ...]` each; of a box opposite corners
    has_mask: bool = False
    is_crowd: bool = False  # neither learned nor scored


def build_coco(
    images: Iterable[tuple[Path, Sequence[Thing]]], names: Sequence[str], root: Path
) -> dict[str, list[dict]]:
    """Makes COCO annotations of files below `root`; boxes are clipped to their images."""
    numbers = {name: index + 1 for index, name in enumerate(names)}
    coco: dict[str, list[dict]] = dict(images=[], annotations=[], categories=[])
    coco["categories"] = [dict(id=number, name=name) for name, number in numbers.items()]
    reader = Reader()  # sizes as displayed, as they are trained on
    for image_id, (path, things) in enumerate(images, start=1):
        height, width = reader.size(str(path))
        name = path.relative_to(root).as_posix()
        coco["images"].append(dict(id=image_id, file_name=name, height=height, width=width))
        for thing in things:
            points = np.concatenate([np.reshape(line, (-1, 2)) for line in thing.outline])
            left, top = points.min(axis=0).clip(0, (width, height)).tolist()
            right, bottom = points.max(axis=0).clip(0, (width, height)).tolist()
            annotation: dict[str, Any] = dict(
                id=len(coco["annotations"]) + 1,
                image_id=image_id,
                category_id=numbers[thing.name],
                bbox=[left, top, right - left, bottom - top],
                area=(right - left) * (bottom - top),
                iscrowd=int(thing.is_crowd),
            )
            if thing.has_mask:
                annotation["segmentation"] = thing.outline
                lines = [np.reshape(line, (-1, 2)).astype(np.float32) for line in thing.outline]
                annotation["area"] = sum(map(cv2.contourArea, lines)) or annotation["area"]
            coco["annotations"].append(annotation)
    return coco


def read_yolo(
    file: Path, names: Sequence[str], size: tuple[int, int], has_keypoints: bool = False
) -> list[Thing]:
    """Reads the labels of an image: `class x y w h`, or `class x y x y x y ...` for a polygon.

    A file that does not exist says that there is no object. Keypoints and a confidence after a box
    are left out.
    """
    things = []
    lines = file.read_text(encoding="utf-8-sig").splitlines() if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, numbers = _parse_yolo(line, f"{file}, line {number}", len(names))
        if has_keypoints or len(numbers) == 5:
            numbers = numbers[:4]
        pixels = [n * size[1 - i % 2] for i, n in enumerate(numbers)]
        has_mask = len(numbers) > 4
        if not has_mask:
            x, y, w, h = pixels
            pixels = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        things.append(Thing(names[label], [pixels], has_mask))
    return things


def _parse_yolo(line: str, where: str, classes: int) -> tuple[int, list[float]]:
    try:
        label, *numbers = map(float, line.split())
    except ValueError:
        raise InitConfigError(f"{where}: numbers are expected, got {line.strip()!r}") from None
    if label not in range(classes):
        raise InitConfigError(
            f"{where}: class {label:g} is none of the {classes} that are named, 0 to {classes - 1}"
        )
    if len(numbers) < 4 or (len(numbers) > 5 and len(numbers) % 2):
        raise InitConfigError(
            f"{where}: a class and `x y w h` or the points of a polygon are expected, got "
            f"{line.strip()!r}"
        )
    outside = [n for n in numbers[:4] if not -OUTSIDE <= n <= 1 + OUTSIDE]
    if outside:
        raise InitConfigError(
            f"{where}: coordinates are parts of the image's width and height, 0 to 1, got "
            f"{outside[0]:g}"
        )
    return int(label), numbers


def read_voc(file: Path) -> tuple[str, list[Thing]]:
    """Reads the image's name and the objects of a Pascal VOC file, whose pixels count from one.

    `difficult` objects become crowds.
    """
    try:
        root = ElementTree.parse(file).getroot()
        things = []
        for item in root.iterfind("object"):
            box = [float(item.findtext(f"bndbox/{side}") or "") for side in VOC_SIDES]
            name, difficult = item.findtext("name", "").strip(), item.findtext("difficult", "")
            if not name:
                raise ValueError("an object without a name")
            box = [box[0] - 1, box[1] - 1, *box[2:]]
            things.append(Thing(name, [box], is_crowd=difficult.strip() == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise InitConfigError(f"{file} is no Pascal VOC annotation: {error}") from None
    return root.findtext("filename", "").strip(), things


def read_labelme(content: dict, skipped: Counter[str]) -> list[Thing]:
    """Reads the rectangles and polygons of a labelme file; `skipped` counts the other shapes."""
    things: list[Thing] = []
    for shape in content["shapes"]:
        name, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if len(points) < LEAST_POINTS.get(kind, len(points) + 1):
            skipped[kind] += 1
            continue
        outline = [value for point in points for value in point]
        things.append(Thing(name, [outline], has_mask=kind != "rectangle"))
    return things


def read_json(file: Path) -> Any:
    """Reads a JSON file; None for one that is not JSON."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
