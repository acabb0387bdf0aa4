"""Reads label maps as mmseg does, and says what is wrong with one."""

import numpy as np
from PIL import Image

from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, examples
from swin_mm.datasets.reader import Reader, UnreadableError

LARGEST = 255  # mmseg casts label maps to uint8
LOSSY = ("JPEG", "MPO")
LOSSY_ADVICE = (
    "which changes the values of pixels, so labels are not what was drawn: export the label maps "
    "as PNG (converting the JPEG does not bring them back)"
)


class LabelError(DatasetError):
    """A label map that does not fit.

    Args:
        kind: Word for this kind of fault.
        text: As of `DatasetError`.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def label_reader(source: Source | None = None) -> Reader:
    """Returns what loads label maps: as stored, with the decoder that `LoadAnnotations` names."""
    step = (source and source.transform("LoadAnnotations")) or {}
    backend = step.get("imdecode_backend", "pillow")
    settings = dict(type="LoadImageFromFile", color_type="unchanged", imdecode_backend=backend)
    return Reader(settings)


def read_labels(path: str, reader: Reader | None = None) -> np.ndarray:
    """Reads a label map: `(H, W)`, int64; of a palette picture the indices.

    Raises:
        LabelError: It is a colour picture, was compressed with loss, or cannot be read.
    """
    reader = reader or label_reader()
    try:
        labels = reader.load(path)
        with Image.open(path) as image:
            kind, mode = image.format, image.mode
    except UnreadableError as error:
        raise LabelError("unreadable", str(error)) from None
    if kind in LOSSY:
        raise LabelError("lossy", f"{path} is a JPEG, {LOSSY_ADVICE}")
    if labels.shape[2] > 1:
        remedy = "convert it: each colour to the index of its class"
        if mode == "P":
            remedy = (
                f"{reader.backend} turns its palette into colours: leave imdecode_backend out of "
                "LoadAnnotations, which gives the indices"
            )
        elif (labels[..., 1 : min(labels.shape[2], 3)] == labels[..., :1]).all():
            remedy = (
                "its channels are equal, so save the first alone: "
                "Image.open(path).getchannel(0).save(path)"
            )
        raise LabelError(
            "colour",
            f"{path} is a colour picture of shape {labels.shape}: a label map has one channel, "
            f"whose values are indices of classes; {remedy}",
        )
    if labels.dtype.kind == "f" and (labels % 1 != 0).any():
        raise LabelError("kind", f"{path} holds fractions: write whole numbers, uint8")
    return labels[..., 0].astype(np.int64)


def check_class_count(count: int, reduced: bool, where: str) -> None:
    """Checks that labels of so many classes fit mmseg's 8 bits beside the ignored value, 255.

    Raises:
        DatasetError: They are too many, or one alone, of which nothing is learned.
    """
    most = LARGEST - reduced
    if count > most:
        raise DatasetError(
            f"{where} has {count} classes, but mmseg loads label maps as uint8, in which 255 is "
            f"the ignored value: at most {most} classes{' with reduce_zero_label' * reduced}; "
            "merge classes"
        )
    if count == 1:
        raise DatasetError(
            f"{where} has one class, so every labelled pixel is of it and nothing is learned: "
            "name what is around it as well: metainfo.classes=('background', NAME) with label "
            "maps of 0 and 1, reduce_zero_label=False, and num_classes=2 in the heads"
        )


def count_labels(
    label: str, reader: Reader, source: Source, label_map: dict[int, int], ignored: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Counts the pixels of each class in a label map, and last the ignored ones.

    Args:
        label: The file.
        reader: What loads it.
        source: The data set.
        label_map: mmseg's renumbering of classes.
        ignored: The label that losses and metrics ignore.

    Returns:
        `(classes + 1,)`, and the height and width of the map.

    Raises:
        LabelError: It does not fit the classes.
    """
    count = len(source.classes())
    raw = read_labels(label, reader)
    values, pixels = np.unique(raw, return_counts=True)
    trained = as_trained(values, bool(source.argument("reduce_zero_label")), label_map)
    is_ignored = trained == ignored
    wrong = ~is_ignored & ((trained < 0) | (trained >= count)) | (values > LARGEST)
    if wrong.any():
        raise LabelError("values", _describe_wrong(label, values[wrong], source, ignored))
    counts = np.zeros(count + 1, dtype=np.int64)
    np.add.at(counts, np.where(is_ignored, count, trained), pixels)
    return counts, raw.shape


def as_trained(values: np.ndarray, reduced: bool, label_map: dict[int, int]) -> np.ndarray:
    """Turns values of a file into labels as mmseg's `LoadAnnotations` does."""
    if reduced:
        values = np.where((values == 0) | (values == 255), 255, values - 1)
    return np.array([label_map.get(int(value), int(value)) for value in values])


def _describe_wrong(path: str, values: np.ndarray, source: Source, ignored: int) -> str:
    count = len(source.classes())
    reduced = bool(source.argument("reduce_zero_label"))
    first, last = (1, count) if reduced else (0, count - 1)
    remedy = "correct the label map, or metainfo.classes"
    if values.max() > LARGEST:
        remedy = "mmseg loads label maps as uint8, so values wrap: write indices of classes"
    elif not reduced and values.tolist() == [count]:
        remedy = (
            f"if values start at 1 and 0 is to be ignored, --cfg-options "
            f"{source.where}.reduce_zero_label=True"
        )
    return (
        f"{source.where}: {path} has the values {examples(values.tolist())}, but {count} classes "
        f"are {first} to {last} (and {ignored} is ignored); {remedy}"
    )
