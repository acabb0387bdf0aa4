"""What is predicted by a command, and the files that are written."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlparse

import cv2
import numpy as np

from swin_mm.datasets.panoptic import to_categories, to_png, to_segments_info
from swin_mm.datasets.picture import Colour
from swin_mm.engine.checkpoint_files import write_atomically
from swin_mm.inference.prediction import Prediction, draw_prediction, objects_to_coco
from swin_mm.inference.sources import PredictError, is_video, open_sources, open_video
from swin_mm.structures import Objects, Segments

PICTURES, LABELS, SEGMENTS, SUMMARY = "pictures", "labels", "panoptic", "predictions.json"


def find_images(arguments: Sequence[str], out: Path) -> dict[str, Path | str | int]:
    """Finds what to predict.

    Args:
        arguments: Images, folders that are searched through for images, patterns, addresses,
            videos, and numbers of cameras.
        out: Where predictions go; pictures of an earlier run there are no images to predict.

    Returns:
        What is to be predicted, by name: of files in a folder relative to it, without suffix.
    """
    found: dict[str, Path | str | int] = {}
    for argument in arguments:
        for name, source in _find(argument, out):
            other = found.setdefault(name, source)
            if other != source:
                raise PredictError(
                    f"predictions of {other} and {source} would have the same name: predict them "
                    "one after the other, with another --out"
                )
    return found


def _find(argument: str, out: Path) -> Iterator[tuple[str, Path | str | int]]:
    """What one argument stands for, each by the name of its predictions."""
    path = Path(argument).expanduser()
    if argument.isdigit() and not path.exists():
        yield f"camera {argument}", int(argument)
    elif "://" in argument:
        yield Path(urlparse(argument).path).stem or "image", argument
    elif is_video(argument):
        yield path.stem, path
    else:
        files = [source.path for source in open_sources(argument) if source.path is not None]
        if not path.is_file():
            own = out.resolve()
            files = [file for file in files if not file.parent.resolve().is_relative_to(own)]
        if not files:
            raise PredictError(f"no images in {argument} but those below {out}")
        for file in files:
            start = path if path.is_dir() else file.parent
            yield file.relative_to(start).with_suffix("").as_posix(), file


class PredictionFiles:
    """Writes predictions to a folder: pictures, label maps, and all of it in one JSON file.

    Objects are written as COCO's annotations with a `score`, so the file serves as ground truth for
    labelling tools, and its `annotations` as results for COCO's evaluation. Classes are numbered
    from 1 there, as in most COCO files. Segments are written as COCO's panoptic annotations, and
    their numbers as PNG. Label maps are PNG whose values are indices of classes, counted from 0.

    Args:
        draw: Whether to draw pictures.
        things: Of panoptic models, classes that are counted; None where that is not known.

    Attributes:
        maps: Name of the folder of PNG files; None where objects are written.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        palette: Sequence[Colour],
        draw: bool = True,
        things: Sequence[str] | None = None,
    ) -> None:
        self.folder, self.classes, self.palette, self.draw = folder, classes, palette, draw
        self.things = things
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.maps: str | None = None

    def add(self, name: str, found: Prediction, frame: int | None = None) -> None:
        """Writes the files of one image.

        Of a video `frame` is its number, and its pictures go elsewhere.
        """
        height, width = found.image.shape[:2]
        entry = dict(id=len(self.images) + 1, file_name=found.name, height=height, width=width)
        if frame is not None:
            entry["frame_id"] = frame
            name = f"{name}/{frame:06d}"
        content = found.content
        if isinstance(content, Objects):
            self.annotations += [
                dict(id=len(self.annotations) + number, image_id=entry["id"], **annotation)
                for number, annotation in enumerate(objects_to_coco(content), start=1)
            ]
        elif isinstance(content, Segments):
            self.maps = SEGMENTS
            info = to_segments_info(content)
            file = f"{name}.png"
            self.annotations.append(dict(image_id=entry["id"], file_name=file, segments_info=info))
            _write_png(self.folder / SEGMENTS / file, to_png(content)[..., ::-1])  # as BGR
        else:
            self.maps = LABELS
            entry["label_map"] = f"{LABELS}/{name}.png"
            _write_labels(self.folder / entry["label_map"], content)
        self.images.append(entry)
        if self.draw and frame is None:
            target = self.folder / PICTURES / f"{name}.png"
            draw_prediction(found.image, content, target, self.classes, self.palette)

    def add_video(self, name: str, source: Path | str | int, frames: Iterator[Prediction]) -> None:
        """Writes the predictions of a video, and the video with what was found drawn in it."""

        def pictures() -> Iterator[np.ndarray]:
            for number, found in enumerate(frames):
                self.add(name, found, number)
                if self.draw:
                    yield found.plot()[: found.image.shape[0]]  # without the legend of a label map

        write_video(self.folder / PICTURES / f"{name}.mp4", "mp4v", source, pictures())

    def close(self) -> Path:
        """Writes the JSON file; returns its path."""
        content: dict = dict(images=self.images)
        if self.maps != LABELS:
            content["annotations"] = self.annotations
        if self.maps is None:
            content["categories"] = [
                dict(id=number, name=name) for number, name in enumerate(self.classes, start=1)
            ]
        elif self.maps == SEGMENTS:
            content["categories"] = to_categories(self.classes, self.palette, self.things)
        else:
            content["classes"] = [
                dict(label=label, name=name, colour=list(map(int, colour)))
                for label, (name, colour) in enumerate(zip(self.classes, self.palette, strict=True))
            ]
        path = self.folder / SUMMARY
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, ensure_ascii=False)
        # Names of files may be no UTF-8: JSON escapes what Python has in their place.
        write_atomically(path, text.encode(errors="backslashreplace"))
        return path


def write_video(
    path: Path, codec: str, source: Path | str | int, pictures: Iterable[np.ndarray]
) -> None:
    """Writes pictures `(H, W, 3)`, RGB, as a video at the rate of another one; of none no file.

    Args:
        path: The file; its folder is made if absent.
        codec: Its four letters.
        source: The other video, or the number of a camera.
        pictures: Those that are larger than the first are cut.
    """
    video, writer = open_video(source), None
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    video.release()
    try:
        for picture in pictures:
            if writer is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                size = picture.shape[1], picture.shape[0]
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
                if not writer.isOpened():  # and would take pictures without a word
                    raise OSError(f"OpenCV cannot write a video of {size} pixels to {path}")
            writer.write(np.ascontiguousarray(picture[: size[1], : size[0], ::-1]))
    finally:
        if writer is not None:
            writer.release()


def _write_labels(path: Path, labels: np.ndarray) -> None:
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    _write_png(path, labels.astype(kind))


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, content = cv2.imencode(".png", pixels)
    write_atomically(path, content.tobytes())
