"""Files of `swin-mm export`, predicted as models are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from swin_mm.configs import ConfigError
from swin_mm.datasets.picture import choose_palette
from swin_mm.datasets.reader import Reader, UnreadableError
from swin_mm.export.runtime import ExportedModel, Found, read_image
from swin_mm.inference.prediction import Prediction
from swin_mm.inference.predictor import PredictOptions, Predictor
from swin_mm.inference.sources import Source, open_sources
from swin_mm.structures import Content, Objects, Segments, to_runs


class Exported(Predictor):
    """An exported detector or segmentor.

    Args:
        path: The `.onnx` file, the `.xml` of OpenVINO, or the `.pt2` of AOTInductor.
        trust: Whether a `.pt2` may run the code that it holds.

    Raises:
        ValueError: The file is not one of `swin-mm export`, gives feature maps, or holds code and
            is not trusted.
    """

    def __init__(self, path: str | Path, trust: bool = False) -> None:
        self.file = ExportedModel(path, trust=trust)
        if self.file.metadata["task"] == "features":
            raise ValueError(f"{path} gives feature maps: run it by swin_mm.export.runtime")
        metadata = self.file.metadata
        self.meta: dict[str, Any] = {
            "classes": tuple(metadata["classes"]),
            "palette": metadata.get("palette"),
        }
        self.classes = self.meta["classes"]
        if rule := metadata.get("panoptic"):
            self.meta["thing_classes"] = self.classes[: rule["things"]]
        self.palette = choose_palette(self.meta)

    def _predict_all(self, source: Any, options: PredictOptions) -> Iterator[Prediction]:
        if options.tta or options.sliced:
            raise ConfigError("tta and sliced need the model itself, not an exported file")
        return self._predict_each(open_sources(source), options)

    def _predict_each(
        self, sources: Iterator[Source], options: PredictOptions
    ) -> Iterator[Prediction]:
        for source in sources:
            image = _read(source, self.file.metadata)
            found = self.file.predict(image, options.score_thr)
            if options.progress is not None:
                options.progress(1, 1)
            yield Prediction(_content(found), image, self.classes, self.palette, source.name)


def _read(source: Source, metadata: dict[str, Any]) -> np.ndarray:
    if isinstance(source.image, np.ndarray):
        if metadata["bands"] != 3:
            return np.ascontiguousarray(source.image)
        reader = Reader()  # grey or with alpha, as a model takes it
        return reader.swap_colours(reader.take(source.image))
    image = source.path or source.image
    assert image is not None
    try:
        return read_image(image, metadata.get("turn", True))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableError(f"{source.name} cannot be loaded ({error})") from None


def _content(found: Found) -> Content:
    if found.label_map is not None:
        return found.label_map
    assert found.labels is not None
    if found.segments is not None:
        return Segments(found.segments, found.labels)
    masks = None if found.masks is None else to_runs(found.masks)
    return Objects(found.labels, found.boxes, found.scores, masks)
