"""Finds folders of images and masks, and makes label maps of black and white or coloured masks."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.label_maps import LOSSY_ADVICE
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config.segmentation import init_semantic_parts
from swin_mm.init_config.semantic import IGNORED, IMAGE_SUFFIXES, SemanticPart, read_classes
from swin_mm.init_config.write import InitConfigError, Options, Written, check_out, find_split

MASK_WORDS = re.compile(r"mask|label|annotation|(?<![a-z])(seg(?!mentationobject)|gt|ground)")
IMAGE_WORDS = re.compile(r"image|img|photo|picture|(?<![a-z])(rgb|input)")
MASK_ENDING = re.compile(r"[-_.](masks?|labels?|labelids|seg|gt)$")
LOOKED_AT = 50  # masks, to find out their kind
COLOURS_SHOWN = 12
BORDER = (224, 224, 192)  # Pascal VOC's colour of pixels without a label

Colour = tuple[int, int, int]


def init_masks(
    root: Path, files: Sequence[Path], classes: Sequence[str] | None, options: Options
) -> Written | None:
    """Writes a config for images and masks; None where there are none.

    Masks with values 0 and 255, or with colours, are converted to label maps beside the config.

    Args:
        root: The folder.
        files: All files below it.
        classes: Names of the classes, or a file of them; else a file in the folder may name them.
        options: Further choices.

    Raises:
        InitConfigError: Masks cannot be used; the message says why.
        DatasetError: The data cannot be trained on.
    """
    parts = find_parts(root, files)
    if not parts:
        return None
    masks = [part.mask_file(name) for part in parts.values() for name in part.names]
    kind = find_kind([masks[index] for index in spread(len(masks))[:LOOKED_AT]])
    table = read_colours(files)
    names = read_classes(classes) or _read_names(files)
    notes = []
    if kind == "colours":
        if not table:
            raise InitConfigError(_describe_colours(masks, root))
        names = names or tuple(table.values())
    elif kind == "0 and 255":
        names = names or ("background", "foreground")
    else:
        names = names or tuple(table.values())
    counts = ", ".join(f"{len(part.names)} {split}" for split, part in parts.items())
    found = f"masks with {kind}: {counts.replace(' all', '')} images"
    train = parts.pop("train", None) or parts.pop("all", None)
    val = parts.pop("val", None)
    if train is None:
        train, val = val or parts.popitem()[1], None
    used = {"train": train} if val is None else {"train": train, "val": val}
    written: list[Path] = []
    try:
        if kind in ("0 and 255", "colours", "grey colours"):
            folder = options.beside("masks")
            for split, part in used.items():
                used[split] = _convert(part, folder / split, kind, table, written, options.force)
            notes.append(f"label maps are written to {folder}; your masks stay as they are")
        return init_semantic_parts(list(used.values()), names, notes, options, found)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def find_parts(root: Path, files: Sequence[Path]) -> dict[str, SemanticPart]:
    """Pairs folders of images with folders of masks, by split.

    Masks lie in folders named so, or beside the images with an ending such as `_mask.png`.

    Raises:
        InitConfigError: Several folders are for one split, or images are of several kinds.
    """
    masks: dict[Path, list[Path]] = defaultdict(list)
    images: dict[Path, dict[str, Path]] = defaultdict(dict)  # by stem
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            if _is_mask(file.relative_to(root)):
                masks[file.parent].append(file)
            else:
                images[file.parent][file.stem] = file
    parts: dict[str, SemanticPart] = {}
    for folder, there in masks.items():
        split = find_split(root, folder)
        pairs = {
            place: {stem: m for m in there for stem in _beginnings(m.stem) if stem in stems}
            for place, stems in images.items()
        }
        place = max(
            pairs,
            key=lambda p: (bool(pairs[p]), find_split(root, p) == split, len(pairs[p])),
            default=None,
        )
        if place is None or not pairs[place]:
            continue
        if split in parts:
            raise InitConfigError(
                f"several folders of masks, {parts[split].masks} and {folder}: name folders with "
                "--masks and --images"
            )
        parts[split] = _pair(place, list(images[place].values()), folder, pairs[place])
    if masks and images and not parts:
        folder, place = next(iter(masks)), next(iter(images))
        raise InitConfigError(
            f"no mask in {folder} is named like an image in {place}: {masks[folder][0].name} "
            f"should begin with the name of its image, as {next(iter(images[place]))}.png does"
        )
    return parts


def _is_mask(path: Path) -> bool:
    """Tells by the end of a file's name, or else by the nearest folder that says something."""
    if MASK_ENDING.search(path.stem.lower()):
        return True
    for parent in path.parents:
        if MASK_WORDS.search(parent.name.lower()):
            return True
        if IMAGE_WORDS.search(parent.name.lower()):
            return False
    return False


def _beginnings(stem: str) -> Iterator[str]:
    """Yields a name, and what is left of it without its last words."""
    yield stem
    while (end := max(stem.rfind(mark) for mark in "_-.")) > 0:
        stem = stem[:end]
        yield stem


def _pair(place: Path, images: list[Path], folder: Path, pairs: dict[str, Path]) -> SemanticPart:
    suffixes = Counter(image.suffix for image in images if image.stem in pairs)
    if len(suffixes) > 1:
        raise InitConfigError(
            f"{place} has images of several kinds ({', '.join(sorted(suffixes))}), but mmseg reads "
            "one kind a folder: convert them, or keep kinds in folders of their own"
        )
    endings = Counter(mask.name.removeprefix(stem) for stem, mask in pairs.items())
    suffix, ending = next(iter(suffixes)), endings.most_common(1)[0][0]
    names = sorted(stem for stem, mask in pairs.items() if mask.name == stem + ending)
    # mmseg lists the images of a folder itself only if each has a mask and none is one.
    is_whole = len(names) == len(images) and not (place == folder and ending.endswith(suffix))
    return SemanticPart(str(place), str(folder), suffix, ending, names, is_whole)


def find_kind(masks: Sequence[str]) -> str:
    """Finds out what masks hold: indices, 0 and 255, colours, or indices in colour files.

    Raises:
        InitConfigError: They are JPEG files.
    """
    values: set[int] = set()
    modes = set()
    for path in masks:
        with Image.open(path) as image:
            if image.format == "JPEG":
                raise InitConfigError(f"{path} is a JPEG, {LOSSY_ADVICE}")
            pixels = np.array(image)
            modes.add(image.mode)
        is_colour = pixels.ndim == 3 and pixels.shape[2] >= 3
        if is_colour and (pixels[..., :3] != pixels[..., :1]).any():
            return "colours"
        pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
        values.update(np.unique(pixels).tolist())
    if values == {0, 255} and "P" not in modes:
        return "0 and 255"
    return "grey colours" if modes & {"RGB", "RGBA", "LA"} else "indices"


def read_colours(files: Sequence[Path]) -> dict[Colour, str]:
    """Reads which class has which colour, from CVAT's `labelmap.txt` or a `class_dict.csv`.

    A line of the first is `name:red,green,blue`, and of the second `name,red,green,blue`.

    Raises:
        InitConfigError: A line is something else.
    """
    for file in files:
        if file.name.lower() not in ("labelmap.txt", "class_dict.csv"):
            continue
        table: dict[Colour, str] = {}
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            words = re.split(r"[:,]", line.strip())
            if not line.strip() or line.startswith("#") or words[1].strip().lower() in ("r", "red"):
                continue
            try:
                red, green, blue = (int(word) for word in words[1:4])
            except ValueError:
                raise InitConfigError(
                    f"{file}: a name and three numbers, such as road:128,64,128, are expected, "
                    f"got {line!r}"
                ) from None
            table[red, green, blue] = words[0].strip()
        return table
    return {}


def _read_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Reads the names of indices, from Roboflow's `_classes.csv` or from `classes.txt`."""
    for file in files:
        if file.name == "_classes.csv":
            with file.open(encoding="utf-8-sig", newline="") as lines:
                rows = [[word.strip() for word in row] for row in csv.reader(lines)]
            return tuple(row[1] for row in rows if len(row) > 1 and row[0].isdigit())
        if file.name == "classes.txt":
            return read_classes([str(file)])
    return ()


def _describe_colours(masks: Sequence[str], root: Path) -> str:
    colours: Counter[Colour] = Counter()
    for index in spread(len(masks))[:LOOKED_AT]:
        with Image.open(masks[index]) as image:
            pixels = np.array(image.convert("RGB")).reshape(-1, 3)
        found, counts = np.unique(pixels, axis=0, return_counts=True)
        colours.update(dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True)))
    listed = ", ".join(",".join(map(str, c)) for c, _ in colours.most_common(COLOURS_SHOWN))
    return (
        f"masks have {len(colours)} colours, and no file says which class each is: write "
        f"{root / 'labelmap.txt'} with a line such as road:128,64,128 for each of {listed}"
    )


def _convert(
    part: SemanticPart,
    folder: Path,
    kind: str,
    table: dict[Colour, str],
    written: list[Path],
    force: bool,
) -> SemanticPart:
    """Writes label maps of masks; adds their paths to `written`."""
    labels = {_code(colour): index for index, colour in enumerate(table)}
    labels.setdefault(_code(BORDER), IGNORED)
    for name in part.names:
        path = folder / f"{name}.png"
        check_out(path.with_suffix(".py"), force, [path])
        with Image.open(part.mask_file(name)) as image:
            pixels = np.array(image)
        if kind == "colours":
            pixels = np.array(Image.fromarray(pixels).convert("RGB"), dtype=np.int64)
            codes, places = np.unique(_code(np.moveaxis(pixels, -1, 0)), return_inverse=True)
            unknown = [code for code in codes.tolist() if code not in labels]
            if unknown:
                colours = [f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in unknown]
                raise InitConfigError(
                    f"{part.mask_file(name)} has colours of no class: {examples(colours)}; name "
                    "them in the table of colours, or correct the mask"
                )
            found = np.array([labels[code] for code in codes.tolist()])
            pixels = found[places].reshape(pixels.shape[:2])
        else:
            pixels = pixels[..., 0] if pixels.ndim == 3 else pixels
            pixels = pixels == 255 if kind == "0 and 255" else pixels
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(path)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return replace(part, masks=str(folder), mask_suffix=".png")


def _code(colour: Any) -> Any:
    """Returns one number for a colour, or for the planes of a picture."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue
