"""Where images to predict come from: files, folders, addresses, videos, and pictures in memory."""

import glob
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import urlopen

import cv2
import numpy as np
import torch
from PIL import Image

from swin_mm.datasets.reader import explain_failure

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
TIMEOUT = 60  # seconds that a server may be silent
# Iterables whose items are no images: bytes are numbers, as those of cameras are.
NO_LIST = (bytes, bytearray, memoryview, io.IOBase, Mapping)


class PredictError(ValueError):
    """Something that cannot be predicted; the message says why."""


@dataclass(frozen=True)
class Source:
    """One image to predict.

    Attributes:
        name: What it is called in messages and names of files.
        path: Its file, or None.
        image: A picture, or pixels `(H, W, bands)`, RGB where it has three; None for a file.
    """

    name: str
    path: Path | None = None
    image: "np.ndarray | PILImage | None" = None


def is_single(source: Any) -> bool:
    """Whether a source is one image, so that there is one prediction."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return source.ndim < 4
    if isinstance(source, str | Path):
        return not (is_video(source) or Path(source).is_dir() or _is_glob(str(source)))
    return isinstance(source, Image.Image)


def is_video(source: Any) -> bool:
    """Whether a source is a video, a stream or a camera."""
    if isinstance(source, int) and not isinstance(source, bool):
        return True
    if not isinstance(source, str | Path):
        return False
    address = urlparse(str(source))
    is_stream = address.scheme in ("rtsp", "rtmp", "udp")
    return is_stream or Path(address.path).suffix.lower() in VIDEO_SUFFIXES


def _is_glob(text: str) -> bool:
    return glob.has_magic(text) and "://" not in text and not Path(text).exists()


def open_sources(source: Any) -> Iterator[Source]:
    """Goes through the images of a source.

    Args:
        source: Path or address (`http://`, `https://`) of an image, folder (searched with those
            below it), pattern such as `photos/*.jpg`, video, number of a camera, PIL image, array
            `(H, W)` or `(H, W, bands)` in RGB, tensor `(3, H, W)` or `(B, 3, H, W)` (uint8, or
            float from 0 to 1), or an iterable of these.

    Raises:
        PredictError: There is no such thing, or it is no image.
        TypeError: It is of another type.
    """
    if isinstance(source, Image.Image):
        yield Source("image", image=source)
    elif isinstance(source, torch.Tensor):
        yield from _from_tensor(source)
    elif isinstance(source, np.ndarray):
        yield from _from_array(source)
    elif is_video(source):
        yield from read_frames(source)
    elif isinstance(source, str | Path):
        yield from _from_text(str(source))
    elif isinstance(source, Iterable) and not isinstance(source, NO_LIST):
        for one in source:
            yield from open_sources(one)
    else:
        raise TypeError(
            "predict takes a path, an address, a folder, a pattern, a video, a PIL image, an "
            f"array, a tensor, or an iterable of these, got {type(source).__name__}; open encoded "
            "images with PIL.Image.open"
        )


def _from_text(text: str) -> Iterator[Source]:
    if urlparse(text).scheme in ("http", "https"):
        yield Source(text, image=_download(text))
        return
    path = Path(text).expanduser()
    if path.is_file():
        yield Source(str(path), path)
        return
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
        missing = f"no images in {path}: no file below it ends in {', '.join(IMAGE_SUFFIXES)}"
    elif glob.has_magic(text):
        found = [Path(file) for file in glob.glob(text, recursive=True) if Path(file).is_file()]
        missing = f"no file matches {text}"
    else:
        raise PredictError(f"there is no image or folder {path}")
    if not found:
        raise PredictError(missing)
    for file in sorted(found):
        yield Source(str(file), file)


def _download(address: str) -> "PILImage":
    try:
        with urlopen(address, timeout=TIMEOUT) as answer:
            content = answer.read()
    except (URLError, OSError, ValueError) as error:
        raise PredictError(f"cannot download {address}: {error}") from error
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        return image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PredictError(f"{address} is not an image: {explain_failure(error)}") from error


def _from_array(array: np.ndarray) -> Iterator[Source]:
    if array.ndim == 4:
        for index, one in enumerate(array):
            yield Source(f"image {index}", image=one)
    elif array.ndim in (2, 3) and array.size:
        yield Source("image", image=array)
    else:
        raise PredictError(
            f"an array must be (H, W), (H, W, bands) or (B, H, W, bands), got {array.shape}"
        )


def _from_tensor(tensor: torch.Tensor) -> Iterator[Source]:
    if tensor.ndim not in (3, 4):
        raise PredictError(
            f"a tensor must be (bands, H, W) or (B, bands, H, W), got {tuple(tensor.shape)}"
        )
    if tensor.shape[-1] in (1, 3, 4) and tensor.shape[-3] > 4:
        raise PredictError(
            f"a tensor must be (bands, H, W) or (B, bands, H, W), got {tuple(tensor.shape)}, whose "
            "bands are the last: give tensor.movedim(-1, -3)"
        )
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        low, high = float(tensor.min()), float(tensor.max())
        if not 0 <= low <= high <= 1:
            raise PredictError(
                f"a tensor of {tensor.dtype} must have values from 0 to 1, got {low:g} to {high:g}"
                "; give values from 0 to 255 as uint8"
            )
        tensor = (255 * tensor.float()).round().to(torch.uint8)
    yield from _from_array(tensor.movedim(-3, -1).contiguous().numpy())


def read_frames(source: str | Path | int) -> Iterator[Source]:
    """Reads the frames of a video or a camera, one after another.

    Raises:
        PredictError: It cannot be opened.
    """
    video = open_video(source)
    try:
        number = 0
        while True:
            is_read, frame = video.read()
            if not is_read:
                break
            yield Source(f"{source}, frame {number}", image=frame[..., ::-1])  # OpenCV gives BGR
            number += 1
    finally:
        video.release()
    if not number:
        raise PredictError(f"{source} has no frames that OpenCV can decode")


def open_video(source: str | Path | int) -> cv2.VideoCapture:
    """Opens a video or a camera.

    Raises:
        PredictError: It cannot be opened.
    """
    if isinstance(source, Path) or (isinstance(source, str) and "://" not in source):
        if not Path(source).is_file():
            raise PredictError(f"there is no video {source}")
        source = str(source)
    log: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging  # OpenCV 4 and 5
    level = log.getLogLevel()
    log.setLogLevel(0)  # silent: what fails is said below, in one line
    video = cv2.VideoCapture(source)
    log.setLogLevel(level)
    if not video.isOpened():
        what = f"camera {source}" if isinstance(source, int) else f"{source} as a video"
        raise PredictError(f"OpenCV cannot open {what}")
    return video
