"""Reads images as the pipeline of a data set does, so that all tools see what training sees."""

import os
import re
import struct
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from swin_mm.configs import bare_type
from swin_mm.datasets.bands import MissingReaderError, is_tiff, read_shape, to_picture
from swin_mm.datasets.transforms.multi_band import LoadMultiBandImage

ORIENTATION = 0x0112  # tag of EXIF and TIFF: 1 upright, 2 to 4 same size, 5 to 8 lying on a side
EXIF = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}  # where a PNG may have it
BUFFER = re.compile(r" <_io\.BytesIO object at 0x\w+>")
END = 65536  # bytes of a PNG that are searched for EXIF behind the pixels
LYING = 5  # from here on the displayed height is the stored width


class UnreadableError(ValueError):
    """An image file that is damaged, or that the loading step cannot read; says why."""


@dataclass(frozen=True)
class Header:
    """What the beginning of an image file says.

    Attributes:
        size: Height and width as stored, pixels.
        orientation: By EXIF, 1 to 8; 1 where the file says nothing.
        is_deep: Whether values have more than 8 bits.
    """

    size: tuple[int, int]
    orientation: int
    is_deep: bool = False


def read_header(path: str | Path) -> Header:
    """Reads the header of an image file, but no pixels."""
    try:
        with Image.open(path) as image:
            # Pillow decodes a whole PNG in search of EXIF behind the pixels.
            is_bare = image.format == "PNG" and not (
                image.info.keys() & EXIF or _ends_in_exif(path)
            )
            orientation = 1 if is_bare else image.getexif().get(ORIENTATION, 1)
            is_deep = image.mode[0] in "IF" or any(";16" in str(tile[3]) for tile in image.tile)
            return Header((image.height, image.width), _clean(orientation), is_deep)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        pass
    try:
        if is_tiff(path):  # Pillow does not know many kinds, such as 16 bits in several bands
            return Header(read_shape(path)[:2], 1, True)
        image = mmcv.imread(path, flag="unchanged")
        return Header(image.shape[:2], 1, image.dtype != np.uint8)
    except MissingReaderError:
        raise
    except Exception as error:  # decoders raise all kinds
        raise unreadable(
            path, f"is not an image, or it is damaged ({explain_failure(error)})"
        ) from None


def unreadable(path: str | Path, reason: str) -> UnreadableError:
    """Makes the error of a file that no decoder took, which may be empty or no image at all."""
    if os.path.isfile(path):
        if not os.path.getsize(path):
            reason = "is empty"
        elif not (cv2.haveImageReader(str(path)) or is_tiff(path) or _is_known_to_pillow(path)):
            reason = "is not an image"
    return UnreadableError(f"{path} {reason}")


def _is_known_to_pillow(path: str | Path) -> bool:
    try:
        with Image.open(path):
            return True
    except UnidentifiedImageError:
        return False
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return True  # but damaged, or too large


def _ends_in_exif(path: str | Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - END))
        return b"eXIf" in file.read()


def explain_failure(error: Exception) -> str:
    """Returns the reason in one line; OpenCV's errors are pages, Pillow's name its buffer."""
    text = BUFFER.sub("", " ".join(str(error).split()))
    return getattr(error, "err", None) or text or type(error).__name__


def _clean(orientation: object) -> int:
    """Takes other values than 1 to 8 for 1, as decoders do."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


class Reader:
    """Reads images as one loading step does.

    Methods raise `UnreadableError` where a file cannot be read or loaded (or pixels are of another
    kind), and `MissingReaderError` where what is needed to read it is not installed.

    Args:
        step: The step: a transform, its settings, or None for `LoadImageFromFile`.

    Attributes:
        name: The step's class.
        backend: What decodes in `LoadImageFromFile`; None in other steps.
        color_type: How; None in other steps.
        is_bgr: Whether the step loads blue first.
        can_check: Whether the step reads one image file. Others (volumes, arrays, a user's own) may
            read anything: pictures of their files are read as by `LoadImageFromFile`.
    """

    def __init__(self, step: dict | Callable | None = None) -> None:
        step = dict(type="LoadImageFromFile") if step is None else step
        self.name = bare_type(step) or type(step).__name__
        self._step: Any = _build(step) if isinstance(step, dict) else step
        self.can_check = isinstance(self._step, LoadMultiBandImage) or (
            getattr(type(self._step), "transform", None) is LoadImageFromFile.transform
        )
        if not self.can_check:
            self._step = LoadImageFromFile()
        self.backend: str | None = getattr(self._step, "imdecode_backend", None)
        self.color_type: str | None = getattr(self._step, "color_type", None)
        self.is_bgr = self.backend not in (None, "tifffile")

    @classmethod
    def of(cls, pipeline: Any) -> "Reader":
        """Builds the reader of a pipeline.

        Args:
            pipeline: Settings of the steps, a `Compose`, or something that has one as `pipeline`,
                such as a data set; wrappers of data sets are looked into. None and pipelines
                without a loading step give a reader for colour pictures.
        """
        while hasattr(pipeline, "dataset"):  # a wrapper such as RepeatDataset
            pipeline = pipeline.dataset
        steps = getattr(pipeline, "pipeline", pipeline)
        steps = getattr(steps, "transforms", steps)
        index = find_loading(steps if isinstance(steps, Sequence) else ())
        return cls(None if index is None else steps[index])

    @property
    def turns(self) -> bool:
        """Whether pixels are turned as EXIF says; TIFF is by all decoders but tifffile."""
        return self.backend in ("cv2", "pillow") and self.color_type in ("color", "grayscale")

    def opposite(self) -> "Reader | None":
        """Returns a reader that turns by EXIF where this one does not, and the other way round.

        It differs in `color_type` alone. None where no setting does that.
        """
        if self.backend not in ("cv2", "pillow") or self.color_type is None:
            return None
        others = {
            "color": "color_ignore_orientation",
            "grayscale": "grayscale_ignore_orientation",
            "unchanged": "color",
        }
        others |= {value: key for key, value in others.items() if value not in others}
        step = copy(self._step)
        step.color_type = others[self.color_type]
        return Reader(step)

    def header(self, path: str | Path) -> Header:
        """Returns what the header says, with the size as loaded.

        A picture that lies on a side is decoded: whether it is turned depends on its format, the
        decoder and its version.
        """
        if isinstance(self._step, LoadMultiBandImage) and is_tiff(path):
            return Header(read_shape(path)[:2], 1)
        header = read_header(path)
        if header.orientation < LYING:
            return header
        return replace(header, size=self.load(path).shape[:2])

    def size(self, path: str | Path) -> tuple[int, int]:
        """Returns height and width as loaded, in pixels."""
        return self.header(path).size

    def load(self, path: str | Path) -> np.ndarray:
        """Loads an image `(H, W, bands)` as training does, but in the order red, green, blue."""
        try:
            image = self._step({"img_path": str(path)})["img"]
        except MissingReaderError:
            raise
        except Exception as error:  # decoders raise all kinds
            raise unreadable(
                path, f"cannot be loaded by {self.name} ({explain_failure(error)})"
            ) from None
        return self.swap_colours(image)

    def swap_colours(self, image: np.ndarray) -> np.ndarray:
        """Turns the order of colours as loaded into red, green, blue, and back.

        Takes `(H, W)` or `(H, W, bands)`, and returns `(H, W, bands)`.
        """
        if image.ndim == 2:
            return image[..., None]
        if not self.is_bgr or image.shape[2] < 3:
            return image
        return np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)

    def take(self, image: np.ndarray) -> np.ndarray:
        """Gives pixels in memory the form that the loading step gives those of a file.

        Args:
            image: `(H, W)` or `(H, W, bands)`, colours in the order red, green, blue.

        Returns:
            The image as loaded; for a model of colour pictures `(H, W, 3)` in blue, green, red.
        """
        bands = image.shape[2] if image.ndim == 3 else 1
        if isinstance(self._step, LoadMultiBandImage):
            return self._step.convert(image.reshape(*image.shape[:2], bands), "the array")
        if image.dtype != np.uint8 or bands not in (1, 3, 4):
            raise UnreadableError(
                "an array must be uint8 from 0 to 255, (H, W), (H, W, 3) in RGB or (H, W, 4), got "
                f"{image.dtype} {image.shape}"
            )
        if self.color_type is not None and self.color_type.startswith("grayscale"):
            image = image if bands == 1 else cv2.cvtColor(image[..., :3], cv2.COLOR_RGB2GRAY)
            image = image.reshape(image.shape[:2])
        elif self.color_type != "unchanged":
            image = image.reshape(*image.shape[:2], bands)[..., :3]
            image = image.repeat(3, axis=2) if bands == 1 else image
        image = np.ascontiguousarray(self.swap_colours(image) if image.ndim == 3 else image)
        return image.astype(np.float32) if getattr(self._step, "to_float32", False) else image

    def read(self, path: str | Path) -> np.ndarray:
        """Loads an image as `load` does, once it is known to be whole."""
        check_file(path)
        return self.load(path)

    def picture(self, path: str | Path) -> np.ndarray:
        """Loads an image to be looked at: `(H, W, 3)`, uint8, RGB."""
        if isinstance(self._step, LoadMultiBandImage):
            return self._step.picture(path)
        return self.show(self.load(path))

    def show(self, image: np.ndarray) -> np.ndarray:
        """Makes a picture, `(H, W, 3)`, uint8, RGB, of an image that `load` has given."""
        if self.color_type != "unchanged" and self.backend != "tifffile":
            image = image.astype(np.uint8)  # 8 bits, also where they are loaded as float32
        return to_picture(image)


def _build(step: dict) -> Callable | None:
    try:
        return TRANSFORMS.build(step)
    except Exception:  # unknown here, or a package that it needs is missing: its user will see
        return None


def find_loading(steps: Sequence) -> int | None:
    """Returns the index of the step of a pipeline that loads the image, or None."""
    for index, step in enumerate(steps):
        name = bare_type(step) or type(step).__name__
        if "Load" in name and "Annotation" not in name and "Proposals" not in name:
            return index
    return None


def check_file(path: str | Path) -> None:
    """Decodes an image file strictly; OpenCV fills up a JPEG that is cut short, without a word."""
    try:
        with Image.open(path) as image:
            if image.format != "TIFF":  # of which every decoder wants the whole
                image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # a format, or a size, that the loading step may know how to read
    # A damaged PNG raises SyntaxError, or struct.error where a length field is cut.
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise UnreadableError(f"{path} is damaged or cut short ({error})") from None
