"""Finds folders of images and masks, and makes label maps of black and white or coloured masks."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.label_maps import LOSSY, LOSSY_ADVICE
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config import recipe
from swin_mm.init_config.draft import Draft
from swin_mm.init_config.options import InitConfigError, Options, Written, find_split
from swin_mm.init_config.segmentation import write_segmentor
from swin_mm.init_config.semantic import (
    IGNORED,
    IMAGE_SUFFIXES,
    SemanticPart,
    pair,
    read_classes,
    read_part,
)

MASK_WORDS = re.compile(r"mask|label|annotation|(?<![a-z])(seg(?!mentationobject)|gt|ground)")
IMAGE_WORDS = re.compile(r"image|img|photo|picture|(?<![a-z])(rgb|input)")
MASK_ENDING = re.compile(r"[-_.](masks?|labels?|labelids|seg|gt)$")
LOOKED_AT = 50  # masks, to find out their kind
COLOURS_SHOWN = 12
COLOUR_LINE = re.compile(r"\s*(.+?)\s*[:,]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*(?:[:,].*)?")
COLOUR_HEADER = re.compile(r"[^,]*,\s*r(ed)?\s*,\s*g(reen)?\s*,", re.IGNORECASE)
BORDER = 0xE0E0C0  # Pascal VOC's colour of pixels without a label

INDICES, BINARY, COLOURS, GREY = "indices", "0 and 255", "colours", "indices as grey colours"

Parts = dict[str, SemanticPart]


def init_segmentation(
    masks: Sequence[str], images: Sequence[str], classes: Sequence[str] | None, options: Options
) -> Written:
    """Writes a config that trains a segmentor on images and masks.

    Args:
        masks: Folders of masks for training and validation; of one alone a part is split off.
        images: Folders of the images, likewise.
        classes: Names, or a file of names; else a file beside the masks may name them.
        options: Further choices.

    Raises:
        InitConfigError, DatasetError: No config can be written for this data.
    """
    if len(masks) != len(images):
        raise InitConfigError(
            f"--images and --masks go together: got {len(images)} folders and {len(masks)}"
        )
    draft = Draft(options, recipe.SEGMENTATION)
    parts = [read_part(*folders) for folders in zip(images, masks, strict=True)]
    folder = Path(parts[0].masks)
    places = (folder, *folder.parents[:2])  # masks may lie in `masks/train`
    beside = [file for place in places for file in sorted(place.iterdir())]
    used = dict(zip(("train", "val"), parts, strict=False))
    return write_masks(draft, used, find_kind(used), beside, classes)


def write_masks(
    draft: Draft,
    parts: Parts,
    kind: str,
    files: Sequence[Path],
    classes: Sequence[str] | None,
) -> Written:
    """Converts masks that are no label maps beside the config, and writes it.

    The classes are named by `classes`, which may be a file, or by one of `files`.
    """
    table = read_colours(files)
    names = read_classes(classes) or _read_names(files)
    order = _order_classes(table, names)
    names = names or tuple(order)
    labels = {value: value for value in range(IGNORED + 1)}
    if kind == COLOURS:
        if not table:
            raise InitConfigError(_describe_colours(parts))
        labels = {BORDER: IGNORED, **{code: order.index(name) for code, name in table.items()}}
    elif kind == BINARY:
        labels, names = {0: 0, 255: 1}, names or ("background", "foreground")
    written: list[Path] = []
    try:
        if kind != INDICES:
            folder = draft.options.beside("masks")
            for split, part in parts.items():
                place = folder / split
                for name in part.names:
                    draft.options.check_new(path := place / f"{name}.png")
                    written.append(path)
                    _convert(part.mask_file(name), path, kind, labels)
                parts[split] = replace(part, masks=str(place), mask_suffix=".png")
            draft.notes.append(f"label maps are written to {folder}; your masks stay as they are")
        return write_segmentor(draft, list(parts.values()), names)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        for place in [path.parent for path in written] + [draft.options.beside("masks")]:
            with suppress(OSError):  # other files are in it, or it is gone
                place.rmdir()
        raise


def find_parts(root: Path, files: Sequence[Path]) -> Parts:
    """Pairs folders of images with folders of masks, by split.

    Masks lie in folders named so, or beside the images with an ending such as `_mask.png`.
    """
    masks: dict[Path, list[str]] = defaultdict(list)
    images: dict[Path, list[str]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            kind = masks if _is_mask(file.relative_to(root)) else images
            kind[file.parent].append(file.name)
    parts: Parts = {}
    for folder, names in masks.items():
        split = find_split(root, folder)
        found = [(place, pair(str(place), images[place], str(folder), names)) for place in images]
        fitting = [(find_split(root, place) == split, part) for place, part in found if part]
        if not fitting:
            continue
        if split in parts:
            raise InitConfigError(
                f"several folders of masks, {parts[split].masks} and {folder}: name folders with "
                "--masks and --images"
            )
        parts[split] = max(fitting, key=lambda one: (one[0], len(one[1].names)))[1]
    if masks and images and not parts:
        folder, place = next(iter(masks)), next(iter(images))
        raise InitConfigError(
            f"no mask in {folder} is named like an image in {place}: {masks[folder][0]} should "
            f"begin with the name of its image, as {Path(images[place][0]).stem}.png does"
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


def find_kind(parts: Parts) -> str:
    """Finds out what masks hold, by looking at some of them."""
    values: set[int] = set()
    modes = set()
    for path in _some_masks(parts):
        with Image.open(path) as image:
            if image.format in LOSSY:
                raise InitConfigError(f"{path} is a JPEG, {LOSSY_ADVICE}")
            pixels = np.array(image)
            modes.add(image.mode)
        grey = _as_grey(pixels)
        if grey is None:
            return COLOURS
        values.update(np.unique(grey).tolist())
    if values == {0, 255} and "P" not in modes:
        return BINARY
    return GREY if modes & {"RGB", "RGBA", "LA"} else INDICES


def _some_masks(parts: Parts) -> list[str]:
    masks = [part.mask_file(name) for part in parts.values() for name in part.names]
    return [masks[index] for index in spread(len(masks))[:LOOKED_AT]]


def _as_grey(pixels: np.ndarray) -> np.ndarray | None:
    """Returns the one channel of a mask, or None where it has colours; opacity is left out."""
    if pixels.ndim == 2:
        return pixels
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    return None if (colours != colours[..., :1]).any() else colours[..., 0]


def read_colours(files: Sequence[Path]) -> dict[int, str]:
    """Reads the class of each colour, `0xRRGGBB`, from `labelmap.txt` or `class_dict.csv`.

    A line of the first, CVAT's, is `name:red,green,blue`, and of the second `name,red,green,blue`.
    """
    table: dict[int, str] = {}
    tables = (file for file in files if file.name.lower() in ("labelmap.txt", "class_dict.csv"))
    for file in [*tables][:1]:
        for line in file.read_text(encoding="utf-8-sig").splitlines():
            if not line.strip() or line.startswith("#") or COLOUR_HEADER.match(line):
                continue
            match = COLOUR_LINE.fullmatch(line)
            if match is None or max(colour := [*map(int, match.groups()[1:])]) > 255:
                raise InitConfigError(
                    f"{file}: a name and three numbers, such as road:128,64,128, are expected, "
                    f"got {line!r}"
                )
            red, green, blue = colour
            table[red << 16 | green << 8 | blue] = match[1]
    return table


def _order_classes(table: dict[int, str], names: Sequence[str]) -> list[str]:
    """Orders the classes of colours as `names` are, after those that are none of these.

    Where `names` has others, it renames those of the table.
    """
    own = list(dict.fromkeys(table.values()))
    first = [name for name in own if name not in names]
    return [*first, *names] if set(names) <= set(own) else own


def _read_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Reads the names of indices, from Roboflow's `_classes.csv` or from a text file."""
    for file in files:
        if file.name == "_classes.csv":
            with file.open(encoding="utf-8-sig", newline="") as lines:
                rows = [[word.strip() for word in row] for row in csv.reader(lines)]
            return tuple(row[1] for row in rows if len(row) > 1 and row[0].isdigit())
        if file.name in ("classes.txt", "class_names.txt"):  # the latter of labelme
            return read_classes([str(file)])
    return ()


def _describe_colours(parts: Parts) -> str:
    colours: Counter[tuple[int, ...]] = Counter()
    for path in _some_masks(parts):
        with Image.open(path) as image:
            counts = image.convert("RGB").getcolors(image.width * image.height)
        colours.update({colour: count for count, colour in counts})
    listed = ", ".join(",".join(map(str, c)) for c, _ in colours.most_common(COLOURS_SHOWN))
    return (
        f"masks have {len(colours)} colours, and no file says which class each is: write "
        "labelmap.txt beside the folder of masks with a line such as road:128,64,128 for each of "
        f"{listed}"
    )


def _convert(mask: str, path: Path, kind: str, labels: dict[int, int]) -> None:
    """Writes the label map of a mask, given the label of each grey value or colour."""
    with Image.open(mask) as image:
        values = _as_grey(np.array(image))
        if kind == COLOURS:
            red, green, blue = np.moveaxis(np.array(image.convert("RGB"), dtype=np.int64), -1, 0)
            values = red << 16 | green << 8 | blue
    found, places = np.unique([-1] if values is None else values, return_inverse=True)
    unknown = [value for value in found.tolist() if value not in labels]
    if unknown and kind == COLOURS:
        colours = [f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in unknown]
        raise InitConfigError(
            f"{mask} has colours of no class: {examples(colours)}; name them in the table of "
            "colours, or correct the mask"
        )
    if unknown or values is None:
        raise InitConfigError(f"{mask} does not hold {kind}, as other masks do: correct it")
    pixels = np.array([labels[value] for value in found.tolist()], dtype=np.uint8)[places]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.reshape(values.shape)).save(path)
