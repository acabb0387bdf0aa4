"""Finds folders of images and masks, and makes label maps of black and white or coloured masks."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.label_maps import LOSSY_ADVICE
from swin_mm.datasets.check.summary import examples
from swin_mm.init_config.segmentation import init_parts
from swin_mm.init_config.semantic import (
    IGNORED,
    IMAGE_SUFFIXES,
    SemanticPart,
    pair,
    read_classes,
    read_part,
)
from swin_mm.init_config.write import (
    InitConfigError,
    Options,
    Written,
    check_new,
    check_out,
    find_split,
)

MASK_WORDS = re.compile(r"mask|label|annotation|(?<![a-z])(seg(?!mentationobject)|gt|ground)")
IMAGE_WORDS = re.compile(r"image|img|photo|picture|(?<![a-z])(rgb|input)")
MASK_ENDING = re.compile(r"[-_.](masks?|labels?|labelids|seg|gt)$")
LOOKED_AT = 50  # masks, to find out their kind
COLOURS_SHOWN = 12
BORDER = (224, 224, 192)  # Pascal VOC's colour of pixels without a label

INDICES, BINARY, COLOURS, GREY = "indices", "0 and 255", "colours", "indices as grey colours"

Colour = tuple[int, int, int]


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
        InitConfigError: No config can be written; the message says why.
        DatasetError: The data cannot be trained on.
    """
    check_out(options.out, options.force)
    if len(masks) != len(images):
        raise InitConfigError(
            f"--images and --masks go together: got {len(images)} folders and {len(masks)}"
        )
    parts = [read_part(*folders) for folders in zip(images, masks, strict=True)]
    folder = Path(parts[0].masks)
    places = (folder, *folder.parents[:2])  # masks may lie in `masks/train`
    beside = [file for place in places for file in sorted(place.iterdir())]
    used = dict(zip(("train", "val"), parts, strict=False))
    return _init(used, find_kind(used), beside, classes, options)


def init_masks(
    root: Path, files: Sequence[Path], classes: Sequence[str] | None, options: Options
) -> Written | None:
    """As `init_segmentation`, for folders of images and masks that are found; None without any.

    Args:
        root: The folder.
        files: All files below it.
        classes: Names, or a file of names; else a file in the folder may name them.
        options: Further choices.
    """
    parts = find_parts(root, files)
    if not parts:
        return None
    kind = find_kind(parts)
    counts = ", ".join(f"{len(part.names)} {split}" for split, part in parts.items())
    found = f"masks with {kind}: {counts.replace(' all', '')} images"
    train = parts.pop("train", None) or parts.pop("all", None)
    val = parts.pop("val", None)
    if train is None:
        train, val = val or parts.popitem()[1], None
    used = {"train": train} if val is None else {"train": train, "val": val}
    return replace(_init(used, kind, files, classes, options), found=found)


def _init(
    parts: dict[str, SemanticPart],
    kind: str,
    files: Sequence[Path],
    classes: Sequence[str] | None,
    options: Options,
) -> Written:
    """Converts masks that are no label maps beside the config, and writes it."""
    table = read_colours(files)
    names = read_classes(classes) or read_names(files) or tuple(table.values())
    if kind == COLOURS and not table:
        raise InitConfigError(_describe_colours(parts))
    if kind == BINARY:
        names = names or ("background", "foreground")
    notes, written = [], list[Path]()
    try:
        if kind != INDICES:
            folder = options.beside("masks")
            for split, part in parts.items():
                parts[split] = _convert(part, folder / split, kind, table, written, options.force)
            notes.append(f"label maps are written to {folder}; your masks stay as they are")
        return init_parts(list(parts.values()), names, notes, options)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        for place in [path.parent for path in written] + [options.beside("masks")]:
            with suppress(OSError):  # other files are in it, or it is gone
                place.rmdir()
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
        image_names = [image.name for image in images[place].values()]
        mask_names = [mask.name for mask in there]
        parts[split] = pair(str(place), image_names, str(folder), mask_names)
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


def find_kind(parts: dict[str, SemanticPart]) -> str:
    """Finds out what masks hold, by looking at some of them.

    Raises:
        InitConfigError: They are JPEG files.
    """
    masks = _sample(parts)
    values: set[int] = set()
    modes = set()
    for path in masks:
        with Image.open(path) as image:
            if image.format == "JPEG":
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


def _sample(parts: dict[str, SemanticPart]) -> list[str]:
    masks = [part.mask_file(name) for part in parts.values() for name in part.names]
    return [masks[index] for index in spread(len(masks))[:LOOKED_AT]]


def _as_grey(pixels: np.ndarray) -> np.ndarray | None:
    """Returns the one channel of a mask, or None where it has colours; opacity is left out."""
    if pixels.ndim == 2:
        return pixels
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    return None if (colours != colours[..., :1]).any() else colours[..., 0]


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


def read_names(files: Sequence[Path]) -> tuple[str, ...]:
    """Reads the names of indices, from Roboflow's `_classes.csv` or from a text file."""
    for file in files:
        if file.name == "_classes.csv":
            with file.open(encoding="utf-8-sig", newline="") as lines:
                rows = [[word.strip() for word in row] for row in csv.reader(lines)]
            return tuple(row[1] for row in rows if len(row) > 1 and row[0].isdigit())
        if file.name in ("classes.txt", "class_names.txt"):  # the latter of labelme
            return read_classes([str(file)])
    return ()


def _describe_colours(parts: dict[str, SemanticPart]) -> str:
    colours: Counter[Colour] = Counter()
    for mask in _sample(parts):
        with Image.open(mask) as image:
            pixels = np.array(image.convert("RGB")).reshape(-1, 3)
        found, counts = np.unique(pixels, axis=0, return_counts=True)
        colours.update(dict(zip(map(tuple, found.tolist()), counts.tolist(), strict=True)))
    listed = ", ".join(",".join(map(str, c)) for c, _ in colours.most_common(COLOURS_SHOWN))
    return (
        f"masks have {len(colours)} colours, and no file says which class each is: write "
        "labelmap.txt beside the folder of masks with a line such as road:128,64,128 for each of "
        f"{listed}"
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
    for name in part.names:
        path = folder / f"{name}.png"
        check_new([path], force)
        with Image.open(part.mask_file(name)) as image:
            pixels = np.array(image.convert("RGB") if kind == COLOURS else image)
        try:
            labels = _look_up(pixels, table) if kind == COLOURS else _label(pixels, kind)
        except InitConfigError as error:
            raise InitConfigError(f"{part.mask_file(name)} {error}") from None
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(path)
        Image.fromarray(labels.astype(np.uint8)).save(path)
    return replace(part, masks=str(folder), mask_suffix=".png")


def _label(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Turns a grey mask into indices."""
    grey = _as_grey(pixels)
    if grey is None or (kind == BINARY and not np.isin(grey, (0, 255)).all()):
        raise InitConfigError(f"does not hold {kind}, as other masks do: correct it")
    return grey == 255 if kind == BINARY else grey


def _look_up(pixels: np.ndarray, table: dict[Colour, str]) -> np.ndarray:
    """Turns colours `(H, W, 3)` into indices of the table."""
    labels = {_code(BORDER): IGNORED}
    labels.update({_code(colour): index for index, colour in enumerate(table)})
    planes = np.moveaxis(pixels.astype(np.int64), -1, 0)
    codes, places = np.unique(_code(planes), return_inverse=True)
    unknown = [code for code in codes.tolist() if code not in labels]
    if unknown:
        colours = [f"{c >> 16},{c >> 8 & 255},{c & 255}" for c in unknown]
        raise InitConfigError(
            f"has colours of no class: {examples(colours)}; name them in the table of colours, or "
            "correct the mask"
        )
    return np.array([labels[code] for code in codes.tolist()])[places].reshape(pixels.shape[:2])


def _code(colour: Any) -> Any:
    """Returns one number for a colour, or for the planes of a picture."""
    red, green, blue = colour
    return (red << 16) + (green << 8) + blue
