"""Pairs folders of images and label maps, and finds out what the values of label maps mean."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from swin_mm.datasets.check.images import spread
from swin_mm.datasets.check.label_maps import LARGEST, read_labels
from swin_mm.datasets.check.sizes import notes_against_turning
from swin_mm.datasets.check.summary import examples
from swin_mm.datasets.reader import Reader
from swin_mm.init_config.options import InitConfigError, Options
from swin_mm.init_config.split import split_names

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
MAP_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
IGNORED = 255  # mmseg's value for pixels without a label
BACKGROUND = "background"
UNNUMBERED = "__ignore__"  # the first of labelme's labels.txt, for the value -1, which becomes 255
MAPS_READ = 1000  # evenly over the data, for their values
SIZES_READ = 200
MOST_UNNAMED = 64  # classes that get a number for a name


@dataclass
class SemanticPart:
    """Training or validation data."""

    images: str  # folder
    masks: str  # folder of label maps
    image_suffix: str
    mask_suffix: str  # such as `_mask.png`
    names: list[str]  # without suffix, relative to the folders
    is_whole: bool = True  # whether they are all images of the folder, so that no list is needed
    list_file: Path | None = None  # of the names

    def image_files(self) -> list[str]:
        return [os.path.join(self.images, name + self.image_suffix) for name in self.names]

    def mask_file(self, name: str) -> str:
        return os.path.join(self.masks, name + self.mask_suffix)

    def _some(self, count: int) -> list[str]:
        return [self.names[index] for index in spread(len(self.names))[:count]]

    def sizes(self) -> list[tuple[int, int]]:
        """Returns the height and width of images spread over the data."""
        chosen, reader = replace(self, names=self._some(SIZES_READ)), Reader()
        return [reader.size(file) for file in chosen.image_files()]

    def color_notes(self) -> list[str]:
        """Says why images are not to be turned as EXIF says; nothing where they are."""
        chosen = replace(self, names=self._some(SIZES_READ))
        files = zip(chosen.image_files(), map(self.mask_file, chosen.names), strict=True)
        maps = dict(files)
        sizes = {image: read_labels(path).shape for image, path in maps.items()}
        return notes_against_turning(sizes, lambda image: read_labels(maps[image]))

    @cached_property
    def values(self) -> dict[str, set[int]]:
        """The values that are in each label map, or in maps spread over the data."""
        chosen = self._some(MAPS_READ)
        return {n: set(np.unique(read_labels(self.mask_file(n))).tolist()) for n in chosen}

    def split(self, options: Options) -> tuple["SemanticPart", "SemanticPart"]:
        """Splits validation data off; each part has a list of its names."""
        names = split_names(self.names, self.values, options.val_share)
        train, val = (replace(self, names=chosen, is_whole=False) for chosen in names)
        return train, val


def read_part(images: str, masks: str) -> SemanticPart:
    """Pairs the images of a folder with the label maps of another."""
    found = []
    for option, folder, suffixes in (
        ("--images", images, IMAGE_SUFFIXES),
        ("--masks", masks, MAP_SUFFIXES),
    ):
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            raise InitConfigError(f"{option}: there is no folder {folder}")
        # Other masks than label maps are refused with the reason, once they are opened.
        names = _list(path, suffixes) or _list(path, IMAGE_SUFFIXES)
        if not names:
            raise InitConfigError(f"there is no file in {folder} that ends in {examples(suffixes)}")
        found.append((str(path), names))
    part = pair(*found[0], *found[1])
    if part is None:
        name = os.path.splitext(found[0][1][0])
        raise InitConfigError(
            f"no label map in {masks} is named like the image {''.join(name)} of {images}: "
            f"{name[0]}.png is expected, there is {found[1][1][0]}"
        )
    return part


def pair(
    images: str, image_names: list[str], masks: str, map_names: list[str]
) -> SemanticPart | None:
    """Pairs images with label maps whose names begin as theirs; None if there are no such."""
    # Label maps have `.png` or `_mask.png` after the name of their image.
    endings: Counter[str] = Counter()
    for index in spread(len(image_names))[:20]:
        stem = os.path.splitext(image_names[index])[0]
        endings.update(name.removeprefix(stem) for name in map_names if name.startswith(stem))
    if not endings:
        return None
    kinds = Counter(os.path.splitext(name)[1] for name in image_names)
    suffix, ending = kinds.most_common(1)[0][0], endings.most_common(1)[0][0]
    if len(kinds) > 1:
        raise InitConfigError(
            f"{images} has images of several kinds ({', '.join(sorted(kinds))}), but mmseg reads "
            "one kind a folder: convert them, or keep kinds in folders of their own"
        )
    stems, there = [name.removesuffix(suffix) for name in image_names], set(map_names)
    paired = [stem for stem in stems if stem + ending in there]
    # mmseg itself lists the images of a folder only if each has a label map and none is one.
    is_whole = len(paired) == len(stems) and not (images == masks and ending.endswith(suffix))
    return SemanticPart(images, masks, suffix, ending, paired, is_whole)


def _list(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(parent, file), folder)
        for parent, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(suffixes)
    )


class Labels(NamedTuple):
    """What the values of label maps mean."""

    classes: tuple[str, ...]
    reduce_zero_label: bool  # whether value 0 is unlabelled, and 1 the first class
    explanation: str


def read_classes(given: Sequence[str] | None) -> tuple[str, ...]:
    """Returns class names from the command line, or from a file with one on each line."""
    if not given:
        return ()
    names = [name.strip() for name in given if name.strip() != UNNUMBERED]
    if len(given) == 1 and Path(given[0]).is_file():
        lines = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
        names = [line.strip() for line in lines if line.strip() not in ("", UNNUMBERED)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names or not all(names):
        raise InitConfigError(
            f"--classes needs different names, got {examples(map(repr, twice or names))}"
        )
    return tuple(names)


def decide_labels(values: set[int], given: tuple[str, ...]) -> Labels:
    """Finds out what the values of label maps mean, given the names of classes or none."""
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
            f"Value 1 of the label maps is {given[0]!r}, 0 is all else, the class {BACKGROUND!r}."
        )
        return Labels((BACKGROUND, *given), False, text + ignored)
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
