"""Reads COCO annotation files for a config: classes, sizes, masks, where the images are."""

import copy
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swin_mm.datasets.check.annotations import check_references, read_coco
from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.objects import has_mask
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config.errors import InitConfigError
from swin_mm.init_config.split import split_names

SOUGHT = 20  # images that are looked for to find the folder


@dataclass
class CocoPart:
    """Training or validation data.

    Attributes:
        file: The annotation file that the config will name; written only if `content` is new.
        content: What is, or will be, in the file.
        images: Folder of the images, "" where file names are absolute.
        is_new: Whether the file is to be written, as the user's own does not serve.
    """

    file: Path
    content: dict
    images: str
    is_new: bool = False

    def image_files(self) -> list[str]:
        """Returns the path of every image."""
        return [os.path.join(self.images, image["file_name"]) for image in self.content["images"]]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns the height and width of every image."""
        return [(image["height"], image["width"]) for image in self.content["images"]]

    def images_with_objects(self) -> int:
        """Counts the images that are trained on."""
        return len({annotation["image_id"] for annotation in self.content["annotations"]})

    def object_shapes(self) -> list[tuple[float, float]]:
        """Returns the height and width of every box, as parts of its image's long side.

        Boxes without area are left out; the check of the data speaks of them.
        """
        sides = {i["id"]: max(i["width"], i["height"]) for i in self.content["images"]}
        boxes = [(a["image_id"], a["bbox"]) for a in self.content["annotations"]]
        return [
            (box[3] / sides[image_id], box[2] / sides[image_id])
            for image_id, box in boxes
            if isinstance(box, list) and len(box) == 4 and min(box[2:]) > 0
        ]

    def class_counts(self) -> dict[str, int]:
        """Counts the objects of each class."""
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        counts = Counter(names.get(a["category_id"]) for a in self.content["annotations"])
        return {name: counts[name] for name in names.values()}


def read_part(path: str, images: str | None) -> CocoPart:
    """Reads an annotation file and finds its images.

    Args:
        path: The file.
        images: Folder of the images; None looks for it.

    Raises:
        InitConfigError: The file is not there, or the images are not, or it names no classes.
        DatasetError: It is not COCO.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise InitConfigError(f"--coco: there is no annotation file {path}")
    content = read_coco(str(file), "--coco")
    check_names(content, path)
    check_references(content, path)
    if not content["annotations"]:
        raise InitConfigError(f"{path} has no annotations, so there is nothing to learn from it")
    return CocoPart(file, content, find_images(content, file, images))


def check_names(content: dict, path: str) -> tuple[str, ...]:
    """Returns the class names in the file's order, as mmdet numbers them.

    Raises:
        InitConfigError: They are not texts, or are not told apart.
    """
    names = [category["name"] for category in content["categories"]]
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if not names or wrong:
        raise InitConfigError(
            f"{path}: the name of every category must be a text, got "
            f"{examples(map(repr, wrong)) if names else 'no categories'}"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InitConfigError(
            f"{path}: several categories are called {examples(map(repr, twice))}: mmdet finds "
            "classes by name, so rename them or give them one id"
        )
    return tuple(names)


def find_images(content: dict, file: Path, given: str | None) -> str:
    """Finds the folder that file names are relative to.

    Args:
        content: The annotations.
        file: Where they are; folders around it are looked at.
        given: The folder, if the user named it.

    Raises:
        InitConfigError: No folder has the images.
    """
    names = [image["file_name"] for image in content["images"]]
    if any(not isinstance(name, str) or not name for name in names):
        raise InitConfigError(f"{file}: every image needs a file_name")
    if all(os.path.isabs(name) for name in names):
        return ""
    sought = [names[index] for index in spread(len(names))[:SOUGHT]]
    if given is not None:
        folder = Path(given).expanduser().resolve()
        if not folder.is_dir():
            raise InitConfigError(f"--images: there is no folder {given}")
        folders = [folder]
    else:
        folders = _candidates(file)
    found = {f: sum((f / name).is_file() for name in sought) for f in folders}
    best = max(found, key=found.get)
    if not found[best]:
        hint = "; its names have backslashes: write them with /" if "\\" in sought[0] else ""
        tried = examples(map(str, folders))
        raise InitConfigError(
            f"no image of {file}, such as {sought[0]}, is in {tried}: name the folder "
            f"with --images{hint}"
        )
    return str(best)


def _candidates(file: Path) -> list[Path]:
    """Lists folders where images usually are, beside `train.json` or `annotations/x_train.json`."""
    stem = file.stem
    words = {stem, *(stem.removeprefix(p) for p in ("instances_", "annotations_", "_annotations."))}
    folders = []
    for parent in (file.parent, file.parent.parent):
        for word in sorted(words, key=len, reverse=True):
            folders += [parent / word, parent / "images" / word]
        folders += [parent / "images", parent]
    return [folder for folder in folders if folder.is_dir()]


def has_masks(parts: Sequence[CocoPart]) -> tuple[bool, str]:
    """Tells whether masks can be learned, and in words what was found.

    mmdet fails on an object without a segmentation, and leaves out one whose polygons have fewer
    than three points.
    """
    masks = [a.get("segmentation") for part in parts for a in part.content["annotations"]]
    usable = sum(map(has_mask, masks))
    absent = sum(not mask for mask in masks)
    if not usable:
        return False, "boxes (there are no masks)"
    if absent:
        return False, f"boxes ({len(masks) - usable} of {len(masks)} objects have no mask)"
    left_out = len(masks) - usable
    return True, "boxes and masks" + (f" ({left_out} without one are left out)" if left_out else "")


def split_part(part: CocoPart, folder: Path, stem: str, share: float) -> tuple[CocoPart, CocoPart]:
    """Splits one file in two, to be written beside the config.

    Returns:
        Training and validation data.
    """
    by_id = {image["id"]: image["file_name"] for image in part.content["images"]}
    labels: dict[str, set] = {}
    for annotation in part.content["annotations"]:
        name = by_id.get(annotation["image_id"])
        labels.setdefault(name, set()).add(annotation["category_id"])
    names = list(by_id.values())
    if len(set(names)) < len(names):
        raise InitConfigError(f"{part.file}: some images are listed twice; list each once")
    parts = []
    for split, chosen in zip(("train", "val"), split_names(names, labels, share), strict=True):
        kept = set(chosen)
        ids = {image_id for image_id, name in by_id.items() if name in kept}
        content = dict(part.content)
        content["images"] = [i for i in part.content["images"] if i["id"] in ids]
        content["annotations"] = [a for a in part.content["annotations"] if a["image_id"] in ids]
        file = folder / f"{stem}_{split}.json"
        parts.append(CocoPart(file, content, part.images, is_new=True))
    return parts[0], parts[1]


def make_usable(part: CocoPart, classes: tuple[str, ...], file: Path) -> list[str]:
    """Changes a part's content where its own file would not serve; then `file` is to be written.

    mmdet numbers classes in each file's own order, and the COCO metric wants `iscrowd`.

    Args:
        part: The data; changed in place.
        classes: The classes, in the order of the training file.
        file: Where a changed copy would go.

    Returns:
        What was changed, in words.

    Raises:
        InitConfigError: It has objects of a class that is not in `classes`.
    """
    counts, changes = part.class_counts(), []
    foreign = [name for name, count in counts.items() if count and name not in classes]
    if foreign:
        raise InitConfigError(
            f"{part.file} has objects of {examples(map(repr, foreign))}, which the training file "
            f"does not list ({examples(map(repr, classes))}): give both files the same categories"
        )
    content = part.content
    if [name for name in counts if name in classes] != list(classes):
        content = _in_order(content, classes)
        changes.append("its classes were put in the order of the training file")
    if any("iscrowd" not in annotation for annotation in content["annotations"]):
        content = dict(content)
        content["annotations"] = [{"iscrowd": 0, **a} for a in content["annotations"]]
        changes.append("iscrowd=0 was added, which the COCO metric asks for")
    if changes and not part.is_new:
        part.file, part.is_new = file, True
    part.content = content
    return changes


def _in_order(content: dict, classes: tuple[str, ...]) -> dict:
    """Returns the annotations with the classes in order and numbered from one."""
    numbers = {name: index + 1 for index, name in enumerate(classes)}
    old = {category["id"]: category["name"] for category in content["categories"]}
    by_name = {category["name"]: category for category in content["categories"]}
    ordered = dict(content)
    ordered["categories"] = [
        {**by_name.get(name, {}), "id": number, "name": name} for name, number in numbers.items()
    ]
    ordered["annotations"] = copy.deepcopy(content["annotations"])
    for annotation in ordered["annotations"]:
        annotation["category_id"] = numbers[old[annotation["category_id"]]]
    return ordered
