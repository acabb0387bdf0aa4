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
    """A label map that does not fit; `kind` is a word for this kind of error."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def label_reader(source: Source | None = None) -> Reader:
    """Returns what loads label maps: as stored, with the decoder that `LoadAnnotations` names."""
    step = source.transform("LoadAnnotations") if source else {}
    backend = step.get("imdecode_backend", "pillow")
    settings = dict(type="LoadImageFromFile", color_type="unchanged", imdecode_backend=backend)
    return Reader(settings)


def read_labels(path: str, reader: Reader | None = None) -> np.ndarray:
    """Reads a label map: `(H, W)`, int64; of a palette picture the indices."""
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


def find_label_map(source: Source) -> dict[int, int]:
    """Returns mmseg's renumbering for configs that choose some of a data set's own classes."""
    try:
        return source.cls.get_label_map(source.classes()) or {}
    except ValueError as error:
        raise DatasetError(f"{source.where}.metainfo.classes: {error}") from None


class LabelCounter:
    """Counts the pixels of each class in label maps of a data set.

    Args:
        source: The data set.
        ignored: The label that losses and metrics ignore.
        label_map: mmseg's renumbering of classes.
    """

    def __init__(self, source: Source, ignored: int, label_map: dict[int, int]) -> None:
        self.reader = label_reader(source)
        self.classes = source.classes()
        self.ignored = ignored
        self._where = source.where
        self._reduced = bool(source.argument("reduce_zero_label"))
        self._label_map = label_map

    def count(self, path: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Counts the pixels of one map.

        Returns:
            `(classes + 1,)`, the last for ignored pixels; height and width of the map.
        """
        number = len(self.classes)
        labels = read_labels(path, self.reader)
        values, pixels = np.unique(labels, return_counts=True)
        trained = values
        if self._reduced:  # as mmseg's `LoadAnnotations`
            trained = np.where((values == 0) | (values == 255), 255, values - 1)
        trained = np.array([self._label_map.get(int(value), int(value)) for value in trained])
        is_ignored = trained == self.ignored
        wrong = ~is_ignored & ((trained < 0) | (trained >= number)) | (values > LARGEST)
        if wrong.any():
            raise LabelError("values", self._describe_wrong(path, values[wrong]))
        counts = np.zeros(number + 1, dtype=np.int64)
        np.add.at(counts, np.where(is_ignored, number, trained), pixels)
        return counts, labels.shape

    def _describe_wrong(self, path: str, values: np.ndarray) -> str:
        number = len(self.classes)
        first, last = (1, number) if self._reduced else (0, number - 1)
        remedy = "correct the label map, or metainfo.classes"
        if values.max() > LARGEST:
            remedy = "mmseg loads label maps as uint8, so values wrap: write indices of classes"
        elif not self._reduced and values.tolist() == [number]:
            remedy = (
                f"if values start at 1 and 0 is to be ignored, --cfg-options "
                f"{self._where}.reduce_zero_label=True"
            )
        return (
            f"{self._where}: {path} has the values {examples(values.tolist())}, but {number} "
            f"classes are {first} to {last} (and {self.ignored} is ignored); {remedy}"
        )
