"""Reads COCO annotation files, and checks their form, ids and numbers."""

import json
import reprlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_mm.datasets.check.summary import DatasetError, and_more, examples

Form = dict[str, set[str]]  # lists of a file, and the keys that each of their items needs
DETECTION: Form = {
    "images": {"id", "file_name", "height", "width"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area"},
    "categories": {"id", "name"},
}
PANOPTIC: Form = {
    "images": DETECTION["images"],
    "annotations": {"image_id", "segments_info"},
    "categories": {"id", "name", "isthing"},
}
SEGMENT = {"id", "category_id", "bbox", "area"}
LARGEST_ID = 2**63 - 1  # faster-coco-eval and NumPy have ids in 64 bits
LARGEST_NUMBER = 1e12  # of pixels; beyond, float32 loses its meaning
LARGEST_SIDE = 10**6  # pixels
LARGEST_IMAGE = 2**30  # pixels, as OpenCV; the metric draws masks of this size
LARGEST_AREA = 1e10  # pixels; COCO's evaluation leaves out what is larger


def read_coco(
    path: str, where: str, labelled: bool = True, form: Form = DETECTION, parsed: Any = None
) -> dict:
    """Reads an annotation file and checks its form: lists, keys, ids and names.

    Args:
        form: Lists that it must have, and the keys of their items.
        parsed: What is in it, where that has been read already.
    """
    option = f"--cfg-options {where}.ann_file=FILE (relative to data_root)"
    try:
        content = Path(path).read_bytes()
        # Strictly, as pycocotools reads: `json` alone lets halves of pairs of surrogates pass.
        text = content.decode(json.detect_encoding(content))
        coco = json.loads(text) if parsed is None else parsed
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        missing = [str(p) for p in Path(path).parents if not p.exists()]
        folder = f" (not even the folder {missing[-1]})" if missing else ""
        raise DatasetError(
            f"{where}: there is no annotation file {path or '(none named)'}{folder}; put the data "
            f"there, or give {option}"
        ) from None
    except RecursionError:
        raise DatasetError(f"{where}: {path} is nested too deeply to be annotations") from None
    except ValueError as error:  # not JSON, not Unicode, or a number of thousands of digits
        raise DatasetError(
            f"{where}: {path} is not JSON ({error}); fetch or write it again, it may be cut short"
        ) from None
    kind = "panoptic segmentation" if form is PANOPTIC else "object detection"
    remedy = f"it must be a COCO file for {kind}: {', '.join(form)}"
    if isinstance(coco, list):
        raise DatasetError(f"{path} is a list, as COCO results are, not annotations: {remedy}")
    if not isinstance(coco, dict):
        raise DatasetError(f"{path} is JSON but not COCO: {remedy}")
    if not labelled:
        coco.setdefault("annotations", [])
    if lacking := [section for section in form if not isinstance(coco.get(section), list)]:
        raise DatasetError(f"{path} has no list {lacking[0]!r}: {remedy}")
    if not coco["images"]:
        raise DatasetError(f"{path} lists no images; write it again, or name another file")
    check_form(coco, path, form)
    if (encoding := json.detect_encoding(content)) != "utf-8":
        named = "UTF-8 with a byte order mark" if encoding == "utf-8-sig" else encoding.upper()
        raise DatasetError(
            f"{path} is in {named}, which pycocotools cannot read: write it as UTF-8 without a mark"
        )
    return coco


def check_form(coco: dict, path: str, form: Form) -> None:
    """Checks the keys of all items, that ids are numbers or texts, and that names are texts."""
    for section, keys in form.items():
        for index, item in enumerate(coco[section]):
            place = f"{path}: {section}[{index}]"
            if lacking := keys - item.keys() if isinstance(item, dict) else keys:
                raise DatasetError(
                    f"{place} lacks {', '.join(sorted(lacking))}; every one of {section} needs "
                    f"{', '.join(sorted(keys))}"
                )
            for key in ("id", "image_id", "category_id"):
                if key in keys and not _is_id(item[key]):
                    raise DatasetError(
                        f"{place} has {key}={show(item[key])}; an id must be a whole number or a "
                        "text"
                    )
            name = {"images": "file_name", "categories": "name"}.get(section)
            if name and not _is_text(item[name]):
                raise DatasetError(f"{place} has {name}={show(item[name])}; it must be a text")
        kinds = {type(item["id"]) for item in coco[section]} if "id" in keys else ()
        if section != "annotations" and len(kinds) > 1:
            raise DatasetError(
                f"{path}: some ids of {section} are numbers and some are texts, which the COCO "
                "metric takes for texts: write numbers"
            )


def _is_id(value: Any) -> bool:
    return type(value) is str or (type(value) is int and abs(value) <= LARGEST_ID)


def _is_text(value: Any) -> bool:
    """Whether a value is a text that can be written to a file and be a file's name."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


def show(value: Any) -> str:
    """Returns a value for a message, shortened: the value may be anything."""
    return reprlib.repr(value)


def flatten_segments(coco: dict, path: str) -> dict:
    """Turns panoptic annotations into the form that objects have: one for each segment.

    Since the ids of segments are those within an image, an annotation's becomes `IMAGE:SEGMENT`,
    and the segment's own stays under the key `segment`.
    """
    segments = []
    for annotation in coco["annotations"]:
        image = annotation["image_id"]
        for segment in annotation["segments_info"]:
            if lacking := SEGMENT - segment.keys():
                raise DatasetError(
                    f"{path}: a segment of image {image} lacks {', '.join(sorted(lacking))}; every "
                    f"one needs {', '.join(sorted(SEGMENT))}"
                )
            key = segment["id"]
            segments.append({**segment, "id": f"{image}:{key}", "segment": key, "image_id": image})
    return {**coco, "annotations": segments}


def check_references(coco: dict, path: str) -> None:
    """Checks that ids are used once, and that annotations name images and classes of the file."""
    for section in ("images", "annotations", "categories"):
        counts = Counter(item["id"] for item in coco[section])
        if twice := [i for i, count in counts.items() if count > 1]:
            raise DatasetError(
                f"{path}: {len(twice)} ids of {section} are used twice: {examples(twice)}; "
                "number them again"
            )
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        known = {item["id"] for item in coco[section]}
        if dangling := [a for a in coco["annotations"] if a[key] not in known]:
            pairs = (f"annotation {a['id']} has {key}={a[key]!r}" for a in dangling)
            kinds = {type(i) for i in known} != {type(a[key]) for a in dangling}
            hint = " (a number and a text are different ids)" if known and kinds else ""
            raise DatasetError(
                f"{path}: {len(dangling)} annotations name {section} that the file does not list: "
                f"{examples(pairs)}; add them to {section} or take the annotations out{hint}"
            )


def check_numbers(coco: dict, path: str) -> None:
    """Checks that sizes, boxes, areas and crowd flags are what mmdet and the COCO metric take."""
    wrong = [*map(find_wrong_size, coco["images"]), *map(find_wrong_box, coco["annotations"])]
    if wrong := [text for text in wrong if text]:
        raise DatasetError(f"{path}: {wrong[0]}{and_more(len(wrong))}")


def find_wrong_size(image: dict) -> str | None:
    """Returns what is wrong with the size of an image, or None."""
    size = (image["width"], image["height"])
    if are_numbers(size) and all(side == int(side) and 0 < side <= LARGEST_SIDE for side in size):
        if size[0] * size[1] <= LARGEST_IMAGE:
            return None
        return (
            f"image {image['id']} has width and height {size}; OpenCV loads images of at most "
            f"{LARGEST_IMAGE} pixels: write the size of the file"
        )
    return (
        f"image {image['id']} has width and height ({show(size[0])}, {show(size[1])}); both must "
        "be pixels, whole numbers from 1 on"
    )


def find_wrong_box(annotation: dict) -> str | None:
    """Returns what is wrong with the box, area or crowd flag of an annotation, or None."""
    box, area = annotation["bbox"], annotation["area"]
    flags = [key for key in ("iscrowd", "ignore") if annotation.get(key) not in (None, 0, 1)]
    if not (isinstance(box, list) and len(box) == 4 and are_numbers(box)):
        shown = box if isinstance(box, str) and len(box) < 40 else show(box)
        wrong = f"bbox={shown}; it must be four numbers, left, top, width and height in pixels"
    elif not are_numbers([area]) or area > LARGEST_AREA:
        wrong = (
            f"area={show(area)}; it must be the number of pixels of the object, at most "
            f"{LARGEST_AREA:g}"
        )
    elif flags:
        wrong = f"{flags[0]}={show(annotation[flags[0]])}; it must be the number 0 or 1"
    else:
        return None
    return f"annotation {annotation['id']} has {wrong}"


def are_numbers(values: Sequence) -> bool:
    """Returns whether all values are finite numbers of a size that pixels can have."""
    return all(
        type(value) in (int, float) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER
        for value in values
    )


def keep_sound(coco: dict) -> dict:
    """Leaves out what was found wrong, so that later checks can go on with the rest."""
    images = [image for image in coco["images"] if not find_wrong_size(image)]
    known = {image["id"] for image in images}
    named = {category["id"] for category in coco["categories"]}
    annotations = [
        annotation
        for annotation in coco["annotations"]
        if annotation["image_id"] in known
        and annotation["category_id"] in named
        and not find_wrong_box(annotation)
    ]
    return {**coco, "images": images, "annotations": annotations}
