"""Files of `swin-mm export`, predicted as models are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from swin_mm.configs import ConfigError
from swin_mm.datasets.picture import choose_palette
from swin_mm.datasets.reader import UnreadableError
from swin_mm.export.runtime import ExportedModel, Found, read_image
from swin_mm.inference.prediction import Prediction
from swin_mm.inference.predictor import PredictOptions, Predictor
from swin_mm.inference.sources import Source, open_sources
from swin_mm.structures import Content, Objects, Segments, to_runs


class Exported(Predictor):
    """An exported detector or segmentor.

    Args:
        path: The `.onnx` file, or the `.xml` of OpenVINO.

    Raises:
        ValueError: The file is not one of `swin-mm export`, or gives feature maps.
    """

    def __init__(self, path: str | Path) -> None:
        self.file = ExportedModel(path)
        if self.file.metadata["task"] == "features":
            raise ValueError(f"{path} gives feature maps: run it by swin_mm.export.runtime")
        self.meta: dict[str, Any] = {"classes": tuple(self.file.metadata["classes"])}
        self.classes = self.meta["classes"]
        if rule := self.file.metadata.get("panoptic"):
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
            image = _read(source, self.file.metadata.get("turn", True))
            found = self.file.predict(image, options.score_thr)
            if options.progress is not None:
                options.progress(1, 1)
            yield Prediction(_content(found), image, self.classes, self.palette, source.name)


def _read(source: Source, turn: bool) -> np.ndarray:
    if isinstance(source.image, np.ndarray):
        return np.ascontiguousarray(source.image)
    image = source.path or source.image
    assert image is not None
    try:
        return read_image(image, turn)
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
