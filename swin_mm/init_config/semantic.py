"""Reads folders of images and label maps for a config: pairs, classes, sizes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.label_maps import LARGEST, LOSSY_ADVICE, read_labels
from swin_mm.datasets.check.sizes import choose_color_type
from swin_mm.datasets.check.summary import examples
from swin_mm.datasets.reader import Reader
from swin_mm.init_config.plan import choose_palette
from swin_mm.init_config.split import split_names
from swin_mm.init_config.write import InitConfigError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES = (".jpg", ".jpeg")
IGNORED = 255  # mmseg's value for pixels without a label
BACKGROUND = "background"
UNNUMBERED = "__ignore__"  # the first of labelme's labels.txt, for the value -1, which becomes 255
MAPS_READ = 1000  # evenly over the data, for their values
SIZES_READ = 200
MOST_UNNAMED = 64  # classes that get a number for a name


@dataclass
class SemanticPart:
    """Training or validation data.

    Attributes:
        images: Folder of the images.
        masks: Folder of the label maps.
        image_suffix: What image names end in.
        mask_suffix: What the names of label maps have instead.
        names: Names without suffix, relative to the folders.
        is_whole: Whether they are all images of the folder, so that no list is needed.
        list_file: Where the list of names is, or will be, if one is needed.
    """

    images: str
    masks: str
    image_suffix: str
    mask_suffix: str
    names: list[str]
    is_whole: bool = True
    list_file: Path | None = None

    def image_files(self) -> list[str]:
        """Returns the path of every image."""
        return [os.path.join(self.images, name + self.image_suffix) for name in self.names]

    def mask_file(self, name: str) -> str:
        """Returns the path of a label map."""
        return os.path.join(self.masks, name + self.mask_suffix)

    def color_type(self) -> tuple[str, list[str]]:
        """Chooses whether images are turned as EXIF says; returns `color_type` and notes."""
        names = [self.names[index] for index in spread(len(self.names))[:SIZES_READ]]
        maps = {
            os.path.join(self.images, name + self.image_suffix): self.mask_file(name)
            for name in names
        }
        sizes = {image: read_labels(path).shape for image, path in maps.items()}
        return choose_color_type(sizes, lambda image: read_labels(maps[image]))

    def sizes(self) -> list[tuple[int, int]]:
        """Returns the height and width of images spread over the data."""
        files = self.image_files()
        reader = Reader()
        return [reader.size(files[index]) for index in spread(len(files))[:SIZES_READ]]

    def values(self) -> dict[str, set[int]]:
        """Reads which values are in each label map, or in maps spread over the data."""
        chosen = [self.names[index] for index in spread(len(self.names))[:MAPS_READ]]
        return {name: set(_values(self.mask_file(name))) for name in chosen}


@dataclass(frozen=True)
class Labels:
    """What the values of label maps mean.

    Attributes:
        classes: Names in the order of labels.
        reduce_zero_label: Whether value 0 is unlabelled, and 1 the first class.
        explanation: In words, how that was found.
    """

    classes: tuple[str, ...]
    reduce_zero_label: bool
    explanation: str


def _values(path: str) -> list[int]:
    import numpy as np

    return np.unique(read_labels(path)).tolist()


def read_part(images: str, masks: str) -> SemanticPart:
    """Pairs the images of a folder with the label maps of another.

    Raises:
        InitConfigError: A folder is missing or empty, or names do not go together.
    """
    folders: list[str] = []
    for option, folder in (("--images", images), ("--masks", masks)):
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise InitConfigError(f"{option}: there is no folder {folder}")
        folders.append(str(path))
    image_names, map_names = _list(folders[0], IMAGE_SUFFIXES), _list(folders[1], MAP_SUFFIXES)
    if not map_names and (lossy := _list(folders[1], LOSSY_SUFFIXES)):
        raise InitConfigError(f"{masks}: {lossy[0]} is a JPEG, {LOSSY_ADVICE}")
    for folder, names, suffixes in (
        (images, image_names, IMAGE_SUFFIXES),
        (masks, map_names, MAP_SUFFIXES),
    ):
        if not names:
            raise InitConfigError(f"there is no file in {folder} that ends in {examples(suffixes)}")
    return pair(folders[0], image_names, folders[1], map_names)


def pair(images: str, image_names: list[str], masks: str, map_names: list[str]) -> SemanticPart:
    """Pairs images with label maps whose names begin as theirs.

    Args:
        images: Folder of the images.
        image_names: Files in it, with suffix.
        masks: Folder of the label maps.
        map_names: Files in it.

    Raises:
        InitConfigError: Images are of several kinds, or no names go together.
    """
    kinds = Counter(os.path.splitext(name)[1] for name in image_names)
    suffix = kinds.most_common(1)[0][0]
    if len(kinds) > 1:
        raise InitConfigError(
            f"{images} has images of several kinds ({', '.join(sorted(kinds))}), but mmseg reads "
            "one kind a folder: convert them, or keep kinds in folders of their own"
        )
    stems = [name.removesuffix(suffix) for name in image_names]
    ending = _find_ending(stems, map_names)
    if ending is None:
        raise InitConfigError(
            f"no label map in {masks} is named like the image {image_names[0]} of {images}: "
            f"{stems[0]}.png is expected, there is {map_names[0]}"
        )
    there = set(map_names)
    paired = [stem for stem in stems if stem + ending in there]
    # mmseg itself lists the images of a folder only if each has a label map and none is one.
    is_whole = len(paired) == len(stems) and not (images == masks and ending.endswith(suffix))
    return SemanticPart(images, masks, suffix, ending, paired, is_whole)


def _list(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(parent, file), folder)
        for parent, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(suffixes)
    )


def _find_ending(stems: list[str], maps: list[str]) -> str | None:
    """Finds what label maps have after the name of their image: `.png` or `_mask.png`."""
    endings: Counter[str] = Counter()
    for index in spread(len(stems))[:20]:
        stem = stems[index]
        endings.update(name.removeprefix(stem) for name in maps if name.startswith(stem))
    return endings.most_common(1)[0][0] if endings else None


def split_part(
    part: SemanticPart, values: dict[str, set[int]], share: float
) -> tuple[SemanticPart, SemanticPart]:
    """Splits one folder in two, each with a list of its names."""
    train, val = split_names(part.names, values, share)
    rest = (part.images, part.masks, part.image_suffix, part.mask_suffix)
    return SemanticPart(*rest, train, False), SemanticPart(*rest, val, False)


def read_classes(given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns class names from the command line, or from a file with one on each line.

    Raises:
        InitConfigError: There are none, or the same twice.
    """
    if not given:
        return ()
    names = [name.strip() for name in given if name.strip() != UNNUMBERED]
    if len(given) == 1 and Path(given[0]).is_file():
        names = [line.strip() for line in Path(given[0]).read_text(encoding="utf-8").splitlines()]
        names = [name for name in names if name and name != UNNUMBERED]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names or not all(names):
        raise InitConfigError(
            f"--classes needs different names, got {examples(map(repr, twice or names))}"
        )
    return tuple(names)


def decide_labels(values: set[int], given: tuple[str, ...]) -> Labels:
    """Finds out what the values of label maps mean.

    Args:
        values: Those that occur.
        given: Names of the classes; without any, classes are named by number.

    Raises:
        InitConfigError: The values are not those of so many classes.
    """
    labels = values - {IGNORED}
    if not labels:
        raise InitConfigError("all label maps are empty: every pixel has the value 255, ignored")
    if labels == {0} and IGNORED in values:
        raise InitConfigError(
            "label maps hold 0 and 255 alone, black and white; mmseg ignores 255: write 1 for 255 "
            "(`mask[mask == 255] = 1`)"
        )
    if max(values) > LARGEST:
        raise InitConfigError(
            f"label maps hold values up to {max(values)}, but mmseg loads them as uint8, so they "
            "would wrap: number the classes from 0 to 254 at most"
        )
    highest, ignored = max(labels), " 255 is ignored." if IGNORED in values else ""
    count = len(given) or (highest + 1 if 0 in labels else highest)
    if not given and count > MOST_UNNAMED:
        raise InitConfigError(
            f"label maps have values up to {highest}: name the classes with --classes"
        )
    names = given or tuple(f"class_{index}" for index in range(count))
    if highest < count and (given or 0 in labels):
        text = f"Values 0 to {count - 1} of the label maps are the classes.{ignored}"
        return Labels(names, False, text)
    if labels == {0, 1} and len(given) == 1:
        text = (
            f"Value 1 of the label maps is {given[0]!r}, 0 is all else, the class "
            f"{BACKGROUND!r}.{ignored}"
        )
        return Labels((BACKGROUND, *given), False, text)
    if highest == count:
        text = (
            f"Values 1 to {count} of the label maps are the {count} classes; 0 is unlabelled and "
            f"ignored (reduce_zero_label): to learn it too, name a first class for it.{ignored}"
        )
        return Labels(names, True, text)
    wrong = sorted(value for value in labels if value > count)
    raise InitConfigError(
        f"label maps hold the values {examples(wrong)}, but {count} classes are 0 to {count - 1} "
        f"(or 1 to {count}, with 0 unlabelled): write the maps anew, or name all classes with "
        "--classes"
    )


def find_palette(path: str, count: int, reduce_zero_label: bool) -> list[tuple[int, int, int]]:
    """Takes the colours of a palette picture, or chooses some."""
    with Image.open(path) as image:
        palette = image.getpalette() if image.mode == "P" else None
    first = int(reduce_zero_label)
    if palette is None or len(palette) < 3 * (first + count):
        return choose_palette(count)
    colours = [tuple(palette[3 * i : 3 * i + 3]) for i in range(first, first + count)]
    return colours if len(set(colours)) == count else choose_palette(count)
