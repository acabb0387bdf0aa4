"""Reads COCO annotation files for a config: classes, sizes, masks, where the images are."""

import copy
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swin_mm.datasets.check.annotations import check_numbers, check_references, read_coco, show
from swin_mm.datasets.check.corrections import choose_folder, match_names, merge_classes
from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.objects import has_mask
from swin_mm.datasets.check.sizes import count_beyond, notes_against_turning
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config.options import InitConfigError, Options
from swin_mm.init_config.split import split_names

SIZES_READ = 200
SOUGHT = 20  # images that are looked for to find the folder


@dataclass
class CocoPart:
    """Training or validation data."""

    file: Path  # that the config will name
    content: dict
    images: str  # folder, "" where file names are absolute
    is_new: bool = False  # whether the file is to be written, as the user's own does not serve
    changes: list[str] = field(default_factory=list)  # in words

    def image_files(self) -> list[str]:
        return [os.path.join(self.images, image["file_name"]) for image in self.content["images"]]

    def sizes(self) -> list[tuple[int, int]]:
        return [(image["height"], image["width"]) for image in self.content["images"]]

    def color_notes(self) -> list[str]:
        """Says why images are not to be turned as EXIF says; nothing where they are."""
        files, sizes = self.image_files(), self.sizes()
        listed = {files[i]: sizes[i] for i in spread(len(files))[:SIZES_READ]}
        notes = notes_against_turning(listed)
        # Sizes that boxes reach beyond are wrong; the check of the data says so.
        wrong = notes and count_beyond(self.content, self.images, listed)
        return [] if wrong else notes

    def images_with_objects(self) -> int:
        """Counts the images that are trained on."""
        return len({annotation["image_id"] for annotation in self.content["annotations"]})

    def object_sides(self) -> list[float]:
        """Returns the root of every box's area, as a part of its image's long side.

        Boxes below a pixel are left out, as in training; the check of the data speaks of them.
        """
        sides = {i["id"]: max(i["width"], i["height"]) for i in self.content["images"]}
        boxes = [(sides[a["image_id"]], *a["bbox"][2:]) for a in self.content["annotations"]]
        return [math.sqrt(w * h) / side for side, w, h in boxes if min(w, h) >= 1]

    def class_counts(self) -> dict[str, int]:
        names = {category["id"]: category["name"] for category in self.content["categories"]}
        counts = Counter(names.get(a["category_id"]) for a in self.content["annotations"])
        return {name: counts[name] for name in names.values()}

    def split(self, options: Options) -> tuple["CocoPart", "CocoPart"]:
        """Splits validation data off; the files go beside the config."""
        by_id = {image["id"]: image["file_name"] for image in self.content["images"]}
        labels: dict[str, set] = {name: set() for name in by_id.values()}
        if len(labels) < len(by_id):
            raise InitConfigError(f"{self.file}: some images are listed twice; list each once")
        for annotation in self.content["annotations"]:
            labels[by_id[annotation["image_id"]]].add(annotation["category_id"])
        parts = []
        for split, names in zip(
            ("train", "val"), split_names(list(labels), labels, options.val_share), strict=True
        ):
            kept = set(names)
            content = dict(self.content)
            for section, key in (("images", "id"), ("annotations", "image_id")):
                content[section] = [x for x in self.content[section] if by_id[x[key]] in kept]
            file = options.beside(f"{split}.json")
            parts.append(CocoPart(file, content, self.images, True, self.changes))
        return parts[0], parts[1]


def read_part(path: str, images: str | None, parsed: Any = None) -> CocoPart:
    """Reads an annotation file and finds its images, in `images` or, if that is None, around it.

    Classes of one name are made one, and names of images that are spelled otherwise are replaced by
    those of the files. `parsed` is the file's JSON, where that has been read already.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise InitConfigError(f"--coco: there is no annotation file {path}")
    content, changes = merge_classes(read_coco(str(file), "--coco", parsed=parsed))
    check_references(content, path)
    check_numbers(content, path)
    check_names(content, path)
    if not content["annotations"]:
        raise InitConfigError(f"{path} has no annotations, so there is nothing to learn from it")
    folders = _candidates(file) if images is None else [Path(images).expanduser().resolve()]
    if images and not folders[0].is_dir():
        raise InitConfigError(f"--images: there is no folder {images}")
    # Names are not matched in the folder above, perhaps a home folder with all that is in it.
    around = [str(f) for f in folders if images or f != file.parent.parent]
    folder = _find_images(content, [str(folder) for folder in folders], around)
    content, matched = match_names(content, folder)
    return CocoPart(file, content, folder, changes=changes + matched)


def check_names(content: dict, path: str) -> tuple[str, ...]:
    """Returns the class names, each once, in the file's order, as mmdet numbers them."""
    if not content["categories"]:
        raise InitConfigError(f"{path} has no categories: it must list the classes")
    return tuple(category["name"] for category in content["categories"])


def _find_images(content: dict, folders: list[str], around: list[str]) -> str:
    """Finds the folder that file names are relative to; "" where they are absolute."""
    names = [image["file_name"] for image in content["images"]]
    sought = [names[index] for index in spread(len(names))[:SOUGHT]]
    if all(map(os.path.isabs, names)) and any(map(os.path.isfile, sought)):
        return ""
    found = {f: sum(os.path.isfile(os.path.join(f, name)) for name in sought) for f in folders}
    best = max(found, key=lambda folder: found[folder])
    return best if found[best] else choose_folder(names, around)


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
    without = len(masks) - sum(map(has_mask, masks))
    if without == len(masks):
        if points := next(filter(_is_list_of_points, masks), None):  # lost in silence otherwise
            raise InitConfigError(
                "a segmentation must be a list of polygons, [[x1, y1, x2, y2, ...], ...], got "
                f"{show(points)}"
            )
        return False, "boxes (there are no masks)"
    if not all(masks):
        return False, f"boxes ({without} of {len(masks)} objects have no mask)"
    return True, "boxes and masks" + (f" ({without} without one are left out)" if without else "")


def _is_list_of_points(segmentation: object) -> bool:
    """Whether numbers are not in a list for each polygon: all in one, or in one for each point."""
    if not isinstance(segmentation, list):
        return False
    is_flat = len(segmentation) >= 6 and not any(isinstance(part, list) for part in segmentation)
    parts = [part for polygon in segmentation if isinstance(polygon, list) for part in polygon]
    return is_flat or any(isinstance(part, list) for part in parts)


def make_usable(part: CocoPart, classes: tuple[str, ...], file: Path) -> list[str]:
    """Changes a part in place where its own file would not serve, and says in words what.

    mmdet numbers classes in each file's own order, and the COCO metric wants `iscrowd`. `file` is
    where a changed copy goes.
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
    old = {category["id"]: category["name"] for category in content["categories"]}
    by_name = {category["name"]: category for category in content["categories"]}
    numbers = {name: index + 1 for index, name in enumerate(classes)}
    categories = [{**by_name.get(n, {}), "id": i, "name": n} for n, i in numbers.items()]
    annotations = copy.deepcopy(content["annotations"])
    for annotation in annotations:
        annotation["category_id"] = numbers[old[annotation["category_id"]]]
    return {**content, "categories": categories, "annotations": annotations}
