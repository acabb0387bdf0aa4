"""Compares the sizes of images as training loads them with those of their annotations.

A photo's EXIF orientation decides: most decoders turn the pixels as it says, some leave them as
stored, and annotations are made on either.
"""

import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from swin_mm.datasets.check.annotations import find_wrong_box
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, examples
from swin_mm.datasets.reader import LYING, Reader, UnreadableError, find_loading

Size = tuple[int, int]  # height and width, pixels
UNTURNED = "color_ignore_orientation"
COMPARED = 32  # pictures whose colours are compared with label maps
LEAST = 3  # pictures that colours are a proof in
CLEAR = 0.1  # share of the variance of colours, by which the better orientation is ahead


@dataclass
class Sizes:
    """How the sizes of images agree with those of their annotations.

    Attributes:
        different: Images of another size, whatever their orientation.
        turned: Images that would fit if they were turned by EXIF where they are not, or vice versa.
        confirmed: Number of images that fit, and would not then.
        unsure: Images that have an orientation and would fit either way.
        deep: Images of more than 8 bits a value.
    """

    different: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)
    confirmed: int = 0
    unsure: list[str] = field(default_factory=list)
    deep: list[str] = field(default_factory=list)


def compare_sizes(reader: Reader, wanted: Mapping[str, Size]) -> Sizes:
    """Compares images with the sizes that their annotations are made for, by file."""
    found = Sizes()
    for path, size in wanted.items():
        try:
            header = reader.header(path)
        except UnreadableError as error:
            raise DatasetError(str(error)) from None
        if header.is_deep:
            found.deep.append(path)
        if header.size != size:
            fits = header.orientation >= LYING and header.size[::-1] == size
            (found.turned if fits else found.different).append(path)
        elif header.orientation >= LYING and size[0] != size[1]:
            found.confirmed += 1
        elif header.orientation > 1:
            found.unsure.append(path)
    return found


def check_orientation(
    found: Sizes, source: Source, reader: Reader, listed_in: str = "", cut: int = 0
) -> None:
    """Checks that no image lies on a side of its annotations.

    Args:
        listed_in: The annotation file, if it states sizes of its own.
        cut: Number of boxes of those images that reach beyond the listed size.
    """
    if not found.turned:
        return
    total = len(found.turned) + found.confirmed
    remedy = orientation_option(source, reader, found.turned[0])
    if found.confirmed:
        remedy = (
            f"the other {found.confirmed} fit as loaded, so no setting serves all: write the "
            "pixels of all images upright, without the tag"
        )
    elif cut:
        remedy = (
            f"{cut} boxes reach beyond the listed sizes, so these are wrong: swap height and width "
            f"of the images in {listed_in}"
        )
    elif listed_in:
        remedy += f"; or, if the sizes alone are wrong, swap height and width in {listed_in}"
    raise DatasetError(
        f"{source.where}: {len(found.turned)} of {total} images that have an EXIF orientation lie "
        f"on a side of their annotations: {examples(found.turned)}; {reader.name} "
        f"{'turns them as EXIF says' if reader.turns else 'leaves them as stored'}, and the "
        f"annotations fit the other way: {remedy}"
    )


def orientation_option(source: Source, reader: Reader, path: str) -> str:
    """Returns the option that has an image loaded in its other orientation, or other advice."""
    other, index = reader.opposite(), find_loading(source.settings.get("pipeline") or ())
    if other is None or index is None or np.array_equal(other.load(path), reader.load(path)):
        return "write the images again with the pixels as annotated, without the tag"
    return f"--cfg-options {source.where}.pipeline.{index}.color_type={other.color_type}"


def note_doubts(found: Sizes, source: Source, reader: Reader) -> list[str]:
    """Returns warnings: sizes that do not tell the orientation, values that are cut to 8 bits."""
    notes = []
    if found.unsure and not found.confirmed and not found.turned and reader.turns:
        notes.append(
            f"{source.where}: {len(found.unsure)} images are turned over or mirrored when they are "
            f"loaded, as their EXIF orientation says, and their size cannot confirm that it is "
            f"right: {examples(found.unsure)}; if they were annotated as stored, "
            f"{orientation_option(source, reader, found.unsure[0])}"
        )
    if found.deep and reader.color_type not in (None, "unchanged"):
        loss = "cut at 255" if reader.backend == "pillow" else "divided by 256"
        notes.append(
            f"{source.where}: {len(found.deep)} images have more than 8 bits a value, which "
            f"{reader.name} makes 8 bits ({loss}): {examples(found.deep)}; "
            "swin_mm.LoadMultiBandImage in its place keeps them"
        )
    return notes


def fits_better_turned(reader: Reader, labels: Mapping[str, np.ndarray]) -> bool:
    """Returns by their colours whether images fit label maps better in their other orientation.

    Args:
        labels: Image file to label map `(H, W)`, of images that fit either way by size.

    Returns:
        Whether that is clear: labels explain more of the colours' variance then, and by much.
    """
    other = reader.opposite()
    if other is None or len(labels) < LEAST:
        return False
    gains = [
        explained_share(other.load(path), values) - explained_share(reader.load(path), values)
        for path, values in list(labels.items())[:COMPARED]
    ]
    return float(np.mean(gains)) > CLEAR and float(np.mean(np.array(gains) > 0)) >= 0.9


def explained_share(image: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of the variance of an image's colours that is between labels: 0 to 1.

    Args:
        image: `(H, W, bands)`.
        labels: `(H, W)`, whole numbers.
    """
    if image.shape[:2] != labels.shape:
        return 0.0
    colours = image.reshape(-1, image.shape[2]).astype(np.float64)
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    colours -= colours.mean(axis=0)
    sums = [np.bincount(index.ravel(), weights=band) for band in colours.T]
    between = sum((total**2 / counts).sum() for total in sums)
    return float(between / max((colours**2).sum(), 1e-12))


def notes_against_turning(
    wanted: Mapping[str, Size], read_map: Callable[[str], np.ndarray] | None = None
) -> list[str]:
    """Says why colour pictures are to be loaded as stored; nothing where EXIF is to turn them.

    `wanted` has the size that annotations are made for, by image file, and `read_map` reads the
    label map of an image, where there is one.
    """
    usual, unturned = Reader(), Reader(dict(type="LoadImageFromFile", color_type=UNTURNED))
    found = compare_sizes(usual, wanted)
    fitting = found.turned
    if read_map and not found.turned and not found.confirmed:
        maps = {image: read_map(image) for image in found.unsure[:COMPARED]}
        fitting = found.unsure if fits_better_turned(usual, maps) else []
    if not fitting or found.confirmed or unturned.size(fitting[0]) != wanted[fitting[0]]:
        return []
    return [
        f"{len(fitting)} of the images looked at have an EXIF orientation, and their annotations "
        f"fit the pixels as stored, so images are loaded without turning (color_type={UNTURNED})"
    ]


def count_beyond(
    coco: dict, folder: str, sizes: Mapping[str, Size], with_mask: bool = False
) -> int:
    """Counts objects that do not fit their image: annotations of another resolution.

    Args:
        sizes: Image file to the size that it may have; other images do not count.
        with_mask: Whether to count masks as run lengths, too: they are for the listed size alone.
    """
    files = {i["id"]: os.path.join(folder, i["file_name"]) for i in coco["images"]}
    count = 0
    for annotation in coco["annotations"]:
        if size := sizes.get(files.get(annotation["image_id"], "")):
            has_runs = with_mask and isinstance(annotation.get("segmentation"), dict)
            is_beyond = not find_wrong_box(annotation) and any(
                annotation["bbox"][i] + annotation["bbox"][i + 2] > size[1 - i] + 1 for i in (0, 1)
            )
            count += has_runs or is_beyond
    return count
