"""Reads YOLO labels, Pascal VOC and labelme files as COCO annotations.

Own readers, as polygons stay exact and only headers of images are read: supervision turns polygons
into masks and back, and keeps the masks of all images in memory.
"""

import json
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swin_mm.datasets.reader import Reader
from swin_mm.init_config.write import InitConfigError

OUTSIDE = 0.01  # that a YOLO coordinate may lie outside of the image by rounding
CIRCLE_POINTS = 32


@dataclass(frozen=True)
class Thing:
    """An object of an image, in pixels.

    Attributes:
        name: Its class.
        box: Left, top, right and bottom.
        polygons: Its outline, as `[x, y, x, y, ...]` each; none for a box alone.
        is_crowd: Whether it is neither learned nor scored.
    """

    name: str
    box: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...] = ()
    is_crowd: bool = False


def outlined(name: str, polygons: Sequence[Sequence[float]]) -> Thing:
    """Makes an object of its polygons."""
    xs = [x for polygon in polygons for x in polygon[::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return Thing(name, (min(xs), min(ys), max(xs), max(ys)), tuple(map(tuple, polygons)))


def build_coco(
    images: Iterable[tuple[Path, Sequence[Thing]]], names: Sequence[str], root: Path
) -> dict[str, list[dict]]:
    """Makes COCO annotations; boxes are clipped to their images.

    Args:
        images: Files below `root`, with their objects.
        names: Classes in order; they are numbered from one.
        root: What the names of files are relative to.
    """
    numbers = {name: index + 1 for index, name in enumerate(names)}
    coco: dict[str, list[dict]] = dict(images=[], annotations=[], categories=[])
    coco["categories"] = [dict(id=number, name=name) for name, number in numbers.items()]
    reader = Reader()  # sizes as displayed, as they are trained on
    for image_id, (path, things) in enumerate(images, start=1):
        height, width = reader.size(str(path))
        name = path.relative_to(root).as_posix()
        coco["images"].append(dict(id=image_id, file_name=name, height=height, width=width))
        for thing in things:
            left, right = (min(max(x, 0.0), width) for x in thing.box[::2])
            top, bottom = (min(max(y, 0.0), height) for y in thing.box[1::2])
            annotation: dict[str, Any] = dict(
                id=len(coco["annotations"]) + 1,
                image_id=image_id,
                category_id=numbers[thing.name],
                bbox=[left, top, right - left, bottom - top],
                area=polygon_area(thing.polygons) or (right - left) * (bottom - top),
                iscrowd=int(thing.is_crowd),
            )
            if thing.polygons:
                annotation["segmentation"] = [list(polygon) for polygon in thing.polygons]
            coco["annotations"].append(annotation)
    return coco


def polygon_area(polygons: Sequence[Sequence[float]]) -> float:
    """Returns the area within polygons, pixels."""
    total = 0.0
    for polygon in polygons:
        points = list(zip(polygon[::2], polygon[1::2], strict=True))
        following = points[1:] + points[:1]
        pairs = zip(points, following, strict=True)
        total += abs(sum(x * y2 - x2 * y for (x, y), (x2, y2) in pairs)) / 2
    return total


def read_yolo(
    file: Path, names: Sequence[str], size: tuple[int, int], has_keypoints: bool = False
) -> list[Thing]:
    """Reads the labels of an image: `class x y w h`, or `class x y x y x y ...` for a polygon.

    Args:
        file: Its text file; one that does not exist says that there is no object.
        names: Classes in order.
        size: Height and width of the image.
        has_keypoints: Whether keypoints follow each box, as for poses.

    Raises:
        InitConfigError: A line is something else.
    """
    if not file.is_file():
        return []
    height, width = size
    things = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        label, numbers = _parse_yolo(line, f"{file}, line {number}", len(names))
        if has_keypoints or len(numbers) == 5:  # a confidence follows the box
            numbers = numbers[:4]
        pixels = [n * (height if i % 2 else width) for i, n in enumerate(numbers)]
        if len(numbers) == 4:
            x, y, w, h = pixels
            things.append(Thing(names[label], (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        else:
            things.append(outlined(names[label], [pixels]))
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
    """Reads a Pascal VOC file, whose pixels count from one; `difficult` objects become crowds.

    Returns:
        The name of the image, and its objects.

    Raises:
        InitConfigError: It is not such a file.
    """
    try:
        root = ElementTree.parse(file).getroot()
        things = []
        for item in root.iterfind("object"):
            sides = (float(item.findtext(f"bndbox/{side}") or "") for side in BOX)
            left, top, right, bottom = sides
            name, difficult = (item.findtext("name") or "").strip(), item.findtext("difficult")
            if not name:
                raise ValueError("an object without a name")
            box = (left - 1, top - 1, right, bottom)
            things.append(Thing(name, box, is_crowd=(difficult or "").strip() == "1"))
    except (ElementTree.ParseError, ValueError) as error:
        raise InitConfigError(f"{file} is no Pascal VOC annotation: {error}") from None
    return (root.findtext("filename") or "").strip(), things


BOX = ("xmin", "ymin", "xmax", "ymax")


def read_labelme(content: dict, skipped: Counter[str]) -> list[Thing]:
    """Reads the shapes of a labelme file; polygons of one group and label are one object.

    Args:
        content: Of the file.
        skipped: Counts the shapes that are no areas, such as lines.
    """
    things: list[Thing] = []
    groups: dict[tuple, list[list[float]]] = {}
    for index, shape in enumerate(content["shapes"]):
        name, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "rectangle" and len(points) >= 2:
            xs, ys = zip(*points, strict=True)
            things.append(Thing(name, (min(xs), min(ys), max(xs), max(ys))))
            continue
        if kind == "circle" and len(points) == 2:
            radius, (x, y) = math.dist(*points), points[0]
            turns = [2 * math.pi * i / CIRCLE_POINTS for i in range(CIRCLE_POINTS)]
            points = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
        elif kind != "polygon" or len(points) < 3:
            skipped[kind] += 1
            continue
        group = shape.get("group_id")
        key = (name, index) if group is None else (name, "group", group)
        groups.setdefault(key, []).append([value for point in points for value in point])
    return things + [outlined(key[0], polygons) for key, polygons in groups.items()]


def read_json(file: Path) -> Any:
    """Reads a JSON file; None for one that is not JSON."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
