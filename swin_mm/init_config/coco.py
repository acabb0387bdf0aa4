"""Reads COCO annotation files for a config: classes, sizes, masks, where the images are."""

import copy
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from swin_mm.datasets.check.annotations import (
    check_numbers,
    check_references,
    read_coco,
    show,
)
from swin_mm.datasets.check.corrections import (
    check_listed_once,
    choose_folder,
    match_names,
    merge_classes,
    suggest_matching,
)
from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.objects import has_mask
from swin_mm.datasets.check.sizes import choose_color_type, count_beyond
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config.split import split_names
from swin_mm.init_config.write import InitConfigError

SIZES_READ = 200
SOUGHT = 20  # images that are looked for to find the folder


@dataclass
class CocoPart:
    """Training or validation data.

    Attributes:
        file: The annotation file that the config will name; written only if `content` is new.
        content: What is, or will be, in the file.
        images: Folder of the images, "" where file names are absolute.
        is_new: Whether the file is to be written, as the user's own does not serve.
        changes: What differs from the user's file, in words.
    """

    file: Path
    content: dict
    images: str
    is_new: bool = False
    changes: list[str] = field(default_factory=list)

    def image_files(self) -> list[str]:
        """Returns the path of every image."""
        return [os.path.join(self.images, image["file_name"]) for image in self.content["images"]]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns the height and width of every image."""
        return [(image["height"], image["width"]) for image in self.content["images"]]

    def color_type(self) -> tuple[str, list[str]]:
        """Chooses whether images are turned as EXIF says; returns `color_type` and notes."""
        files, sizes = self.image_files(), self.sizes()
        listed = {files[i]: sizes[i] for i in spread(len(files))[:SIZES_READ]}
        color_type, notes = choose_color_type(listed)
        if notes and count_beyond(self.content, self.images, listed):
            return "color", []  # the sizes are wrong; the check of the data says so
        return color_type, notes

    def images_with_objects(self) -> int:
        """Counts the images that are trained on."""
        return len({annotation["image_id"] for annotation in self.content["annotations"]})

    def object_shapes(self) -> list[tuple[float, float]]:
        """Returns the height and width of every box, as parts of its image's long side.

        Boxes below a pixel are left out, as in training; the check of the data speaks of them.
        """
        sides = {i["id"]: max(i["width"], i["height"]) for i in self.content["images"]}
        boxes = [(a["image_id"], a["bbox"]) for a in self.content["annotations"]]
        return [
            (box[3] / sides[image_id], box[2] / sides[image_id])
            for image_id, box in boxes
            if min(box[2:]) >= 1
        ]

    def class_counts(self) -> dict[str, int]:
        """Counts the objects of each class."""
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        counts = Counter(names.get(a["category_id"]) for a in self.content["annotations"])
        return {name: counts[name] for name in names.values()}


def read_part(path: str, images: str | None, match: bool = False, merge: bool = False) -> CocoPart:
    """Reads an annotation file and finds its images.

    Args:
        path: The file.
        images: Folder of the images; None looks for it.
        match: Whether names of images that are spelled otherwise are matched with files.
        merge: Whether classes of one name are merged.

    Raises:
        InitConfigError: The file is not there, or the images are not, or it names no classes.
        DatasetError: It is not COCO.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise InitConfigError(f"--coco: there is no annotation file {path}")
    content = read_coco(str(file), "--coco")
    content, changes = merge_classes(content) if merge else (content, [])
    check_references(content, path)
    check_numbers(content, path)
    check_names(content, path)
    if not content["annotations"]:
        raise InitConfigError(f"{path} has no annotations, so there is nothing to learn from it")
    if match:
        names = [image["file_name"] for image in content["images"]]
        folder = choose_folder(names, _matchable(file, images))
        content, matched = match_names(content, folder)
        return CocoPart(file, content, folder, changes=changes + matched)
    return CocoPart(file, content, find_images(content, file, images), changes=changes)


def check_names(content: dict, path: str) -> tuple[str, ...]:
    """Returns the class names in the file's order, as mmdet numbers them.

    Raises:
        InitConfigError: There are none.
        DatasetError: Several are the same.
    """
    if not content["categories"]:
        raise InitConfigError(f"{path} has no categories: it must list the classes")
    check_listed_once(content, path, "--merge-classes")
    return tuple(category["name"] for category in content["categories"])


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
    sought = [names[index] for index in spread(len(names))[:SOUGHT]]
    if all(map(os.path.isabs, names)) and any(map(os.path.isfile, sought)):
        return ""
    folders = _folders(file, given)
    found = {f: sum(os.path.isfile(os.path.join(f, name)) for name in sought) for f in folders}
    best = max(found, key=lambda folder: found[folder])
    if not found[best]:
        best = choose_folder(names, _matchable(file, given))
        advice = suggest_matching(names, best, f"--images {quote(best)} --match-names")
        advice = advice or "; name the folder with --images, and --match-names if names differ"
        raise InitConfigError(
            f"no image of {file}, such as {sought[0]}, is in {examples(folders)}{advice}"
        )
    return best


def _matchable(file: Path, given: str | None) -> list[str]:
    """As `_folders`, but for what is beside the folder of the annotations."""
    beside = str(file.parent.parent)  # perhaps a home folder, with all that is in it
    return [folder for folder in _folders(file, given) if given or folder != beside]


def _folders(file: Path, given: str | None) -> list[str]:
    """Lists folders to look for images in: the given one, or those beside the annotations.

    Raises:
        InitConfigError: The given one does not exist.
    """
    folders = _candidates(file) if given is None else [Path(given).expanduser().resolve()]
    if given is not None and not folders[0].is_dir():
        raise InitConfigError(f"--images: there is no folder {given}")
    return list(map(str, folders))


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

    Raises:
        InitConfigError: There is none, but lists of points that are no polygons to mmdet.
    """
    masks = [a.get("segmentation") for part in parts for a in part.content["annotations"]]
    usable = sum(map(has_mask, masks))
    absent = sum(not mask for mask in masks)
    if not usable:
        if points := next(filter(_is_list_of_points, masks), None):  # lost in silence otherwise
            raise InitConfigError(
                "a segmentation must be a list of polygons, [[x1, y1, x2, y2, ...], ...], got "
                f"{show(points)}"
            )
        return False, "boxes (there are no masks)"
    if absent:
        return False, f"boxes ({len(masks) - usable} of {len(masks)} objects have no mask)"
    left_out = len(masks) - usable
    return True, "boxes and masks" + (f" ({left_out} without one are left out)" if left_out else "")


def _is_list_of_points(segmentation: object) -> bool:
    """Whether numbers are not in a list for each polygon: all in one, or in one for each point."""
    if not isinstance(segmentation, list):
        return False
    is_flat = len(segmentation) >= 6 and not any(isinstance(part, list) for part in segmentation)
    parts = [part for polygon in segmentation if isinstance(polygon, list) for part in polygon]
    return is_flat or any(isinstance(part, list) for part in parts)


def split_part(part: CocoPart, files: tuple[Path, Path], share: float) -> tuple[CocoPart, CocoPart]:
    """Splits one file in two.

    Args:
        part: The data.
        files: Where training and validation annotations will be written.
        share: Part of the images for validation.
    """
    by_id = {image["id"]: image["file_name"] for image in part.content["images"]}
    labels: dict[str, set] = {}
    for annotation in part.content["annotations"]:
        if (name := by_id.get(annotation["image_id"])) is not None:
            labels.setdefault(name, set()).add(annotation["category_id"])
    names = list(by_id.values())
    if len(set(names)) < len(names):
        raise InitConfigError(f"{part.file}: some images are listed twice; list each once")
    parts = []
    for file, chosen in zip(files, split_names(names, labels, share), strict=True):
        kept = set(chosen)
        ids = {image_id for image_id, name in by_id.items() if name in kept}
        content = dict(part.content)
        content["images"] = [i for i in part.content["images"] if i["id"] in ids]
        content["annotations"] = [a for a in part.content["annotations"] if a["image_id"] in ids]
        parts.append(CocoPart(file, content, part.images, is_new=True, changes=part.changes))
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
    counts, changes = part.class_counts(), list(part.changes)
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
