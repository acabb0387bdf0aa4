"""Finds out what data set a folder holds, and writes the config for it."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from swin_mm.datasets.check.corrections import NO_CLASS
from swin_mm.datasets.check.summary import examples
from swin_mm.datasets.reader import Reader
from swin_mm.init_config import convert, recipe
from swin_mm.init_config.coco import CocoPart, read_part
from swin_mm.init_config.detection import write_detector
from swin_mm.init_config.draft import Draft
from swin_mm.init_config.masks import find_kind, find_parts, write_masks
from swin_mm.init_config.options import InitConfigError, Options, Written, find_split
from swin_mm.init_config.semantic import IMAGE_SUFFIXES

NAME_FILES = ("classes.txt", "obj.names", "classes.names")
KINDS = "COCO, YOLO, Pascal VOC, labelme annotations, or folders of images and masks"

Files = list[Path]
Read = dict[str, list[tuple[Path, list[convert.Thing]]]]  # images and objects of each split
Found = tuple[str, dict[str, CocoPart], list[str]]  # in words; the data of each split; notes


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
        InitConfigError, DatasetError: No config can be written for this data.
    """
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise InitConfigError(f"there is no folder {folder}")
    files = list_files(root, options)
    coco_files, labelme = _sort_json(files)
    coco = _choose_coco(root, list(coco_files))
    if images and not coco:
        raise InitConfigError(f"--images goes with COCO annotations, and {folder} has none")
    found = (
        _read_coco(root, coco, coco_files, images)
        or _find_yolo(root, files, options)
        or _find_voc(root, files, options)
        or _find_labelme(root, files, labelme, options)
    )
    if found is not None:
        kind, parts, notes = found
        if classes:
            raise InitConfigError(f"--classes goes with masks, but {folder} has {kind}")
        used = _choose_parts(parts)
        if "test" in parts and len(parts) > 1:
            tests = len(parts["test"].sizes())
            notes = [*notes, f"{tests} test images are left for a test of your own"]
        draft = Draft(options, recipe.DETECTION, notes, _describe(kind, parts))
        return write_detector(draft, list(used.values()))
    if masks := find_parts(root, files):
        kind = find_kind(masks)
        draft = Draft(options, recipe.SEGMENTATION, found=_describe(f"masks with {kind}", masks))
        return write_masks(draft, _choose_parts(masks), kind, files, classes)
    counts = Counter(file.suffix.lower() or file.name for file in files)
    there = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))
    raise InitConfigError(
        f"no data set is recognised in {folder} ({there or 'no file'}): expected are {KINDS}; "
        "name files with --coco, or folders with --masks and --images"
    )


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


def _choose_parts(parts: dict[str, Any]) -> dict[str, Any]:
    """Chooses what is trained on, or all there is, and what is validated on; tests are left."""
    order = [split for split in ("train", "all", "val", "test") if split in parts]
    train = order[0]
    val = {"val": parts["val"]} if "val" in parts and train != "val" else {}
    return {"train": parts[train], **val}


def _describe(kind: str, parts: dict[str, Any]) -> str:
    counts = (f"{len(part.image_files())} {split}" for split, part in parts.items())
    return f"{kind}: {', '.join(counts).replace(' all', '')} images"


def _sort_json(files: Files) -> tuple[dict[Path, dict], dict[Path, dict]]:
    """What COCO files say, and what labelme files say, without the pictures in them."""
    coco, labelme = {}, {}
    for file in files:
        content = convert.read_json(file) if file.suffix.lower() == ".json" else None
        if isinstance(content, dict) and _is_coco(content):
            coco[file] = content
        elif isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys():
            labelme[file] = {key: content[key] for key in ("shapes", "imagePath")}
    return coco, labelme


def _is_coco(content: dict) -> bool:
    """Whether it has boxes of images, unlike captions and panoptic segments."""
    sections = [content.get(key) for key in ("images", "annotations", "categories")]
    if not all(isinstance(section, list) for section in sections):
        return False
    first = content["annotations"][0] if content["annotations"] else {}
    return isinstance(first, dict) and "segments_info" not in first and "caption" not in first


def _choose_coco(root: Path, files: Files) -> dict[str, Path]:
    """Chooses the COCO file of each split, such as of Roboflow, CVAT and Label Studio."""
    by_split: dict[str, Files] = defaultdict(list)
    for file in files:
        by_split[find_split(root, file)].append(file)
    chosen = {}
    for split, there in by_split.items():
        instances = [file for file in there if file.name.startswith("instances")]
        if len(there) > 1 and len(instances) != 1:
            raise InitConfigError(
                f"{len(there)} COCO files could be the data: {_below(root, there)}; name those for "
                "training and validation with --coco"
            )
        chosen[split] = (instances or there)[0]
    return chosen


def _below(root: Path, files: Files) -> str:
    return examples(str(file.relative_to(root)) for file in files)


def _read_coco(
    root: Path,
    chosen: dict[str, Path],
    parsed: dict[Path, dict],
    images: Sequence[str],
) -> Found | None:
    if not chosen:
        return None
    parts = {}
    for split, file in chosen.items():
        folder = images[-1 if split == "val" else 0] if images else None
        parts[split] = read_part(str(file), folder, parsed[file])
    return f"COCO annotations ({_below(root, list(chosen.values()))})", parts, []


def _find_yolo(root: Path, files: Files, options: Options) -> Found | None:
    """Finds YOLO labels: by `data.yaml`, or by a file of names beside images and labels."""
    read = [(file, _read_yaml(file)) for file in files if file.suffix in (".yaml", ".yml")]
    described = [(file, content) for file, content in read if "names" in content]
    if any(content != described[0][1] for _, content in described[1:]):
        raise InitConfigError(
            f"{len(described)} files describe a data set: "
            f"{_below(root, [file for file, _ in described])}; keep one in the folder"
        )
    named = [file for file in files if file.name in NAME_FILES]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    splits: dict[str, Files] = {}
    if described:
        source, content = described[0]
        names = _yolo_names(content["names"], source)
        known = set(files) | {parent for file in files for parent in file.parents}
        for split in ("train", "val", "test"):
            splits[split] = _yolo_images(content, split, source, images, known)
    elif named and any(_yolo_file(image).is_file() for image in images):
        source, content = named[0], {}
        names = _yolo_names(source.read_text(encoding="utf-8-sig").split("\n"), source)
    else:
        return None
    if not any(splits.values()):
        splits = defaultdict(list)
        for image in images:
            splits[find_split(root, image.parent)].append(image)
    labels = {image: _yolo_file(image) for there in splits.values() for image in there}
    if not any(file.is_file() for file in labels.values()):
        raise InitConfigError(
            f"no image of {source} has labels: {examples(map(str, labels.values()))} are not there"
        )
    poses, size = "kpt_shape" in content, Reader().size
    things = {
        split: [(i, convert.read_yolo(labels[i], names, size(str(i)), poses)) for i in there]
        for split, there in splits.items()
        if there
    }
    found = _convert(f"YOLO labels ({_below(root, [source])})", things, root, files, options, names)
    if splits.get("train") and splits["train"] == splits.get("val"):
        found[2].append(f"{source.name} names the same images for training and validation")
    return found


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
    names = [str(name).strip() for name in names]
    while names and not names[-1]:  # lines at the end of a file
        names.pop()
    if not all(names):  # to leave it out would number the others anew
        raise InitConfigError(f"{source}: class {names.index('')} has no name, got {names}")
    if not names or len(set(names)) < len(names):
        raise InitConfigError(f"{source}: different names of classes are expected, got {names}")
    return names


def _yolo_images(content: dict, split: str, source: Path, images: Files, known: set[Path]) -> Files:
    """Lists the images of a split, which is a folder or several of them."""
    value = content.get(split) or (content.get("valid") if split == "val" else None)
    chosen: set[Path] = set()
    for entry in value if isinstance(value, list) else [value] if value else []:
        place = _find_place(content.get("path") or "", entry, source, known)
        if place is None and split == "test":  # often named and left out of an export
            continue
        if place is None:
            raise InitConfigError(
                f"{source} names {entry} for {split}, which is not in the folder: correct it there"
            )
        if not place.is_dir():
            raise InitConfigError(
                f"{source} names the file {entry} for {split}: name the folder of the images there"
            )
        chosen.add(place)
    return [image for image in images if not chosen.isdisjoint({image, *image.parents})]


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
    before, images, after = image.as_posix().rpartition("/images/")
    other = Path(f"{before}/labels/{after}").with_suffix(".txt")
    return other if images and other.parent.is_dir() else image.with_suffix(".txt")


def _find_voc(root: Path, files: Files, options: Options) -> Found | None:
    """Finds Pascal VOC files; `ImageSets/Main` or the names of folders say which are for what."""
    found = [file for file in files if file.suffix.lower() == ".xml"]
    found = [file for file in found if re.search(rb"<annotation[\s>]", file.read_bytes()[:2000])]
    if not found:
        return None
    lists: dict[str, set[str]] = {}
    for file in files:
        if file.parent.name == "Main" and file.stem in ("train", "val", "test", "trainval"):
            lists.setdefault(file.stem, set()).update(_read_list(file))
    both = lists.pop("trainval", set())
    if not lists.get("train") and both:
        lists["train"] = both
    read: Read = defaultdict(list)
    images = _images_by_name(files)
    unlisted = []
    for file in found:
        name, things = convert.read_voc(file)
        *folders, stem = file.relative_to(root).with_suffix("").parts
        called = {"/".join([*folders[index:], stem]) for index in range(len(folders) + 1)}
        listed = [split for split, names in lists.items() if not called.isdisjoint(names)]
        for split in listed if lists else [find_split(root, file.parent)]:
            read[split].append((_find_image(images, file, name), things))
        if lists and not listed:
            unlisted.append(file.name)
    if not read:
        raise InitConfigError(
            f"the lists in ImageSets/Main name none of the {len(found)} xml files, which are "
            f"{examples(unlisted)}: correct the lists, or remove them to split by itself"
        )
    converted = _convert(
        f"Pascal VOC annotations ({len(found)} xml files)", read, root, files, options
    )
    if unlisted:
        converted[2].append(
            f"no list in ImageSets/Main names {len(unlisted)} xml files, which are left out: "
            f"{examples(unlisted)}"
        )
    return converted


def _read_list(file: Path) -> set[str]:
    """Reads the names in a list of Pascal VOC, which may have blanks, and a number after them."""
    lines = {line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()}
    return lines | {re.sub(r"\s+-?[01]$", "", line) for line in lines}


def _find_labelme(
    root: Path, files: Files, labelme: dict[Path, dict], options: Options
) -> Found | None:
    """Reads labelme files, one beside each image."""
    read: Read = defaultdict(list)
    images = _images_by_name(files)
    skipped: Counter[str] = Counter()
    for file, content in labelme.items():
        image = _find_image(images, file, str(content["imagePath"]))
        things = convert.read_labelme(content, skipped)
        read[find_split(root, file.parent)].append((image, things))
    if not read:
        return None
    found = _convert("labelme annotations", read, root, files, options)
    if skipped:
        shapes = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        found[2].append(f"shapes without an area are left out: {shapes}")
    return found


def _images_by_name(files: Files) -> dict[str, Files]:
    by_name: dict[str, Files] = defaultdict(list)
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            by_name[file.name].append(file)
            by_name[file.stem].append(file)
    return by_name


def _find_image(images: dict[str, Files], annotation: Path, name: str) -> Path:
    """Finds the nearest image by what its annotations call it, or by the name of their file."""
    called = re.split(r"[\\/]", name)[-1]
    found = images.get(called) or images.get(annotation.stem) or []
    near = [len(os.path.commonpath([file, annotation])) for file in found]
    best = [file for file, shared in zip(found, near, strict=True) if shared == max(near)]
    if len(best) != 1:
        raise InitConfigError(
            f"{annotation} is of the image {called or annotation.stem}, of which there "
            f"{'is none' if not best else f'are {len(best)}: {examples(map(str, best))}'}"
        )
    return best[0]


def _convert(
    kind: str, read: Read, root: Path, files: Files, options: Options, names: Sequence[str] = ()
) -> Found:
    """Makes COCO annotations of what was read; without `names`, classes are sorted by name."""
    notes = ["annotations are converted to COCO files beside the config; yours stay as they are"]
    taken = {image for there in read.values() for image, _ in there}
    folders = {image.parent for image in taken}
    others = [f for f in files if f.parent in folders and f.suffix.lower() in IMAGE_SUFFIXES]
    if left := [file.name for file in others if file not in taken]:
        notes.append(f"{len(left)} images without annotations are left out: {examples(left)}")
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
