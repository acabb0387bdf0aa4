"""Finds out what data set a folder holds, and writes the config for it."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from swin_mm.datasets.check.corrections import NO_CLASS
from swin_mm.datasets.check.summary import examples
from swin_mm.datasets.reader import Reader
from swin_mm.init_config import convert
from swin_mm.init_config.coco import CocoPart, read_part
from swin_mm.init_config.detection import init_parts
from swin_mm.init_config.masks import init_masks
from swin_mm.init_config.semantic import IMAGE_SUFFIXES
from swin_mm.init_config.write import InitConfigError, Options, Written, find_split

NAME_FILES = ("classes.txt", "obj.names", "classes.names")
KINDS = "COCO, YOLO, Pascal VOC, labelme annotations, or folders of images and masks"

Files = list[Path]
Parts = dict[str, CocoPart]
Read = dict[str, list[tuple[Path, list[convert.Thing]]]]  # images and objects of each split
Found = tuple[str, Parts, list[str]]  # what it is, in words; the data of each split; notes
Finder = Callable[[Path, Files, Options], Found | None]


def init_folder(
    folder: str, images: Sequence[str], classes: Sequence[str] | None, options: Options
) -> Written:
    """Writes a config for the data set in a folder.

    Args:
        folder: Holds COCO, YOLO, Pascal VOC or labelme annotations, or images and masks.
        images: Folders of the images of COCO annotations; empty looks for them.
        classes: Names of the values of masks.
        options: Further choices.

    Raises:
        InitConfigError: No data set is found, or no config can be written for it.
        DatasetError: The data cannot be trained on.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise InitConfigError(f"there is no folder {folder}")
    files = list_files(root, options)
    if images and not find_coco_files(root, files):
        raise InitConfigError(f"--images goes with COCO annotations, and {folder} has none")
    coco = partial(find_coco, images=images)
    finders: tuple[Finder, ...] = (coco, find_yolo, find_voc, find_labelme)
    for find in finders:
        found = find(root, files, options)
        if found is not None:
            if classes:
                raise InitConfigError(f"--classes goes with masks, but {folder} has {found[0]}")
            return _write(*found, options)
    written = init_masks(root, files, classes, options)
    if written is None:
        counts = Counter(file.suffix.lower() or file.name for file in files)
        there = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))
        raise InitConfigError(
            f"no data set is recognised in {folder} ({there or 'no file'}): expected are {KINDS}; "
            "name files with --coco, or folders with --masks and --images"
        )
    return written


def list_files(root: Path, options: Options) -> Files:
    """Lists the files of a folder in order, without hidden ones and those of an earlier config."""
    files: Files = []
    beside, written = options.out.parent.resolve(), f"{options.out.stem}_"
    seen: set[str] = set()  # links may lead around in a circle
    for parent, folders, names in os.walk(root, followlinks=True):
        if (place := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(place)
        ignored: tuple[str, ...] = (".", "__", "work_dirs")
        if Path(parent) == beside:
            ignored = (*ignored, written)
        folders[:] = [name for name in folders if not name.startswith(ignored)]
        files += [Path(parent, name) for name in names if not name.startswith(ignored)]
    return sorted(files)


def _write(kind: str, parts: Parts, notes: list[str], options: Options) -> Written:
    """Trains on the training part, or on what there is, and validates on the validation part."""
    used = {split: part for split, part in parts.items() if split != "test" or len(parts) == 1}
    train = used.pop("train", None) or used.pop("all", None)
    val = used.pop("val", None)
    if train is None:
        train, val = val or used.popitem()[1], None
    if "test" in parts and train is not parts["test"]:
        notes = [
            *notes,
            f"{len(parts['test'].sizes())} test images are left for a test of your own",
        ]
    counts = ", ".join(f"{len(part.sizes())} {split}" for split, part in parts.items())
    found = f"{kind}: {counts.replace(' all', '')} images"
    return init_parts([train] if val is None else [train, val], notes, options, found)


def find_coco(
    root: Path, files: Files, options: Options, images: Sequence[str] = ()
) -> Found | None:
    """Finds COCO annotations, such as of Roboflow, CVAT and Label Studio."""
    chosen = find_coco_files(root, files)
    if not chosen:
        return None
    parts = {}
    for split, file in chosen.items():
        folder = images[-1 if split == "val" else 0] if images else None
        parts[split] = read_part(str(file), folder, options.match_names, options.merge_classes)
    names = examples(str(file.relative_to(root)) for file in chosen.values())
    return f"COCO annotations ({names})", parts, []


def find_coco_files(root: Path, files: Files) -> dict[str, Path]:
    """Finds the COCO file of each split.

    Raises:
        InitConfigError: Several files could be that of a split.
    """
    by_split: dict[str, Files] = defaultdict(list)
    for file in files:
        if file.suffix.lower() == ".json" and _is_coco(convert.read_json(file)):
            by_split[find_split(root, file)].append(file)
    chosen = {}
    for split, there in by_split.items():
        instances = [file for file in there if file.name.startswith("instances")]
        if len(there) > 1 and len(instances) != 1:
            raise InitConfigError(
                f"{len(there)} COCO files could be the data: "
                f"{examples(file.relative_to(root) for file in there)}; name those for training "
                "and validation with --coco"
            )
        chosen[split] = (instances or there)[0]
    return chosen


def _is_coco(content: Any) -> bool:
    """Whether it has boxes of images, unlike captions and panoptic segments."""
    if not isinstance(content, dict):
        return False
    sections = [content.get(key) for key in ("images", "annotations", "categories")]
    if not all(isinstance(section, list) for section in sections):
        return False
    first = sections[1][0] if sections[1] else {}
    return isinstance(first, dict) and "segments_info" not in first and "caption" not in first


def find_yolo(root: Path, files: Files, options: Options) -> Found | None:
    """Finds YOLO labels: by `data.yaml`, or by a file of names beside images and labels."""
    described = [(file, _read_yaml(file)) for file in files if file.suffix in (".yaml", ".yml")]
    described = [(file, content) for file, content in described if "names" in content]
    named = [file for file in files if file.name in NAME_FILES]
    if any(content != described[0][1] for _, content in described[1:]):
        raise InitConfigError(
            f"{len(described)} files describe a data set: "
            f"{examples(file.relative_to(root) for file, _ in described)}; keep one in the folder"
        )
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if described:
        source, content = described[0]
        names = _yolo_names(content["names"], source)
        splits = {s: _yolo_images(content, s, source, files) for s in ("train", "val", "test")}
        if not any(splits.values()):
            splits = _by_folder(root, images)
    elif named and any(_yolo_file(image).is_file() for image in images):
        source, content, splits = named[0], {}, _by_folder(root, images)
        names = _yolo_names(source.read_text(encoding="utf-8-sig").split("\n"), source)
    else:
        return None
    labels = {image: _yolo_file(image) for there in splits.values() for image in there}
    if not any(file.is_file() for file in labels.values()):
        raise InitConfigError(
            f"no image of {source} has labels: {examples(map(str, labels.values()))} are not there"
        )
    poses, size = "kpt_shape" in content, Reader().size
    read = {
        split: [(i, convert.read_yolo(labels[i], names, size(str(i)), poses)) for i in there]
        for split, there in splits.items()
        if there
    }
    kind = f"YOLO labels ({source.relative_to(root)})"
    kind, parts, notes = _convert(kind, read, root, options, names)
    if splits.get("train") and splits["train"] == splits.get("val"):
        notes.append(f"{source.name} names the same images for training and validation")
    return kind, parts, notes


def _by_folder(root: Path, images: Files) -> dict[str, Files]:
    splits: dict[str, Files] = defaultdict(list)
    for image in images:
        splits[find_split(root, image.parent)].append(image)
    return splits


def _read_yaml(file: Path) -> dict:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _yolo_names(names: Any, source: Path) -> list[str]:
    """Returns the classes in order, from a list or from a dict by number."""
    if isinstance(names, dict):
        numbers = [key for key in names if isinstance(key, int)]
        last = max(numbers, default=-1)
        names = [names.get(index, f"class_{index}") for index in range(last + 1)]
    names = [str(name).strip() for name in names if str(name).strip()]
    if not names or len(set(names)) < len(names):
        raise InitConfigError(f"{source}: different names of classes are expected, got {names}")
    return names


def _yolo_images(content: dict, split: str, source: Path, files: Files) -> Files:
    """Lists the images of a split, which is a folder, a list file, or several of them."""
    value = content.get("valid") if split == "val" and "val" not in content else content.get(split)
    found: dict[Path, None] = {}
    known = set(files) | {parent for file in files for parent in file.parents}
    for entry in value if isinstance(value, list) else [value] if value else []:
        place = _find_place(content.get("path") or "", entry, source, known)
        if place is None and split == "test":  # often named and left out of an export
            continue
        if place is None:
            raise InitConfigError(
                f"{source} names {entry} for {split}, which is not in the folder: correct it there"
            )
        inside = [place]
        if place in files:
            lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines()]
            listed = [_find_place(place.parent, line, source, known) for line in lines if line]
            inside = [image for image in listed if image is not None]
            if len(inside) < len(listed):
                raise InitConfigError(f"{len(listed) - len(inside)} files of {place} do not exist")
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        chosen = set(inside)
        found.update(dict.fromkeys(i for i in images if chosen & {i, *i.parents}))
    return list(found)


def _find_place(base: str | Path, entry: str, source: Path, known: set[Path]) -> Path | None:
    """Finds a path of `data.yaml`, which often begins as on the machine where it was written."""
    path = Path(str(entry).replace("\\", "/"))
    parts = [part for part in path.parts if part not in ("..", ".", "/")]
    tried = [source.parent / base / path, source.parent / path]
    tried += [source.parent.joinpath(*parts[index:]) for index in range(len(parts))]
    places = (Path(os.path.normpath(place)) for place in tried)
    return next((place for place in places if place in known), None)


def _yolo_file(image: Path) -> Path:
    """Returns the file of an image's labels: in `labels` for `images`, or beside the image."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        other = Path(*parts).with_suffix(".txt")
        if other.parent.is_dir():
            return other
    return image.with_suffix(".txt")


def find_voc(root: Path, files: Files, options: Options) -> Found | None:
    """Finds Pascal VOC files; `ImageSets/Main` or the names of folders say which are for what."""
    found = [file for file in files if file.suffix.lower() == ".xml"]
    found = [file for file in found if re.search(rb"<annotation[\s>]", file.read_bytes()[:2000])]
    if not found:
        return None
    lists: dict[str, set[str]] = defaultdict(set)
    for file in files:
        if file.parent.name == "Main" and file.stem in ("train", "val", "test", "trainval"):
            lists[file.stem].update(file.read_text(encoding="utf-8").split())
    both = lists.pop("trainval", set())
    if both and not lists["train"]:
        lists["train"] = both
    read: Read = defaultdict(list)
    locate = ImageFinder(files)
    for file in found:
        name, things = convert.read_voc(file)
        splits = [split for split, stems in lists.items() if file.stem in stems]
        if not lists:
            splits = [find_split(root, file.parent)]
        for split in splits:
            read[split].append((locate(file, name), things))
    return _convert(f"Pascal VOC annotations ({len(found)} xml files)", read, root, options)


def find_labelme(root: Path, files: Files, options: Options) -> Found | None:
    """Finds labelme files, one beside each image."""
    read: Read = defaultdict(list)
    locate = ImageFinder(files)
    skipped: Counter[str] = Counter()
    for file in files:
        content = convert.read_json(file) if file.suffix.lower() == ".json" else None
        if isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys():
            image = locate(file, str(content["imagePath"]))
            things = convert.read_labelme(content, skipped)
            read[find_split(root, file.parent)].append((image, things))
    if not read:
        return None
    kind, parts, notes = _convert("labelme annotations", read, root, options)
    if skipped:
        shapes = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        notes.append(f"shapes without an area are left out: {shapes}")
    return kind, parts, notes


class ImageFinder:
    """Finds the images that annotation files belong to."""

    def __init__(self, files: Files) -> None:
        self._by_name: dict[str, Files] = defaultdict(list)
        for file in files:
            if file.suffix.lower() in IMAGE_SUFFIXES:
                for name in {file.stem, file.name}:
                    self._by_name[name].append(file)

    def __call__(self, annotation: Path, name: str) -> Path:
        """Finds an image by the name of its annotations, or by what they call it.

        Raises:
            InitConfigError: There is none, or several are as near.
        """
        called = re.split(r"[\\/]", name)[-1]
        found = self._by_name.get(called) or self._by_name.get(annotation.stem) or []
        near = [file for file in found if file.parent == annotation.parent]
        near = near or [f for f in found if f.parent.parent == annotation.parent.parent] or found
        if len(near) != 1:
            raise InitConfigError(
                f"{annotation} is of the image {called or annotation.stem}, of which there "
                f"{'is none' if not near else f'are {len(near)}: {examples(map(str, near))}'}"
            )
        return near[0]


def _convert(
    kind: str, read: Read, root: Path, options: Options, names: Sequence[str] = ()
) -> Found:
    """Makes COCO annotations of what was read; without `names`, classes are sorted by name."""
    notes = ["annotations are converted to COCO files beside the config; yours stay as they are"]
    every = Counter(t.name for there in read.values() for _, things in there for t in things)
    used = every.keys() - set(NO_CLASS)
    if left_out := ", ".join(f"{every[name]} {name!r}" for name in NO_CLASS if every[name]):
        notes.append(f"objects that are called what is no object are left out: {left_out}")
    if not used:
        raise InitConfigError(f"{kind} have no object, so there is nothing to learn from them")
    parts = {}
    for split, there in read.items():
        kept = [(image, [t for t in things if t.name in used]) for image, things in there]
        content = convert.build_coco(kept, names or sorted(used), root)
        parts[split] = CocoPart(options.beside(f"{split}.json"), content, str(root), is_new=True)
    return kind, parts, notes
