"""`Model.export`: from a loaded model and its config to a file."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from swin_mm.configs import innermost_dataset
from swin_mm.datasets.picture import Colour
from swin_mm.datasets.reader import Reader
from swin_mm.export.evaluate import Evaluation
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import read_image
from swin_mm.export.write import ExportResult, Lower, export_model
from swin_mm.inference.sources import open_sources

CALIBRATION_IMAGES = 200  # more change ranges little; 300 is nncf's own choice


def export(
    module: nn.Module,
    cfg: Config,
    classes: Sequence[str],
    palette: Sequence[Colour],
    path: str | Path,
    format: str | None = None,
    *,
    part: str = "model",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    half: bool = False,
    int8: Any = None,
    val_images: int = 200,
    check: bool = True,
    image: Any = None,
) -> ExportResult:
    """Exports the model of a config; `Model.export` describes the arguments."""
    if half and int8 is not None:
        raise ExportError("half and int8 do not go together: choose one")
    picture = None if image is None else read_image(image)
    if next(module.parameters()).device.type != "cpu":
        module = deepcopy(module).cpu()
    plan = make_plan(module, cfg.test_dataloader.dataset, part)
    lower = None
    if half or int8 is not None:
        evaluate = None if plan.task == "features" else _find_evaluation(cfg, val_images)
        images = () if int8 is None else _read_images(int8, cfg)
        lower = Lower("half" if half else "int8", images, evaluate)
    return export_model(
        plan, path, classes, palette, format, size, batch, check, picture=picture, lower=lower
    )


def _find_evaluation(cfg: Config, val_images: int) -> Evaluation | None:
    try:
        if cfg.get("val_dataloader") is None or cfg.get("val_evaluator") is None:
            raise FileNotFoundError("the config has no val_dataloader and val_evaluator")
        return Evaluation(cfg, val_images)
    except FileNotFoundError as error:
        print_log(f"accuracy is not measured before and after: {error}", level="WARNING")
        return None


def _read_images(source: Any, cfg: Config) -> Iterator[np.ndarray]:
    reader = Reader.of(innermost_dataset(cfg.test_dataloader.dataset).pipeline)
    found = islice(open_sources(source), CALIBRATION_IMAGES)
    first = next(found)  # says now, not after minutes of work, that there are none
    return (_read(one, reader) for one in [first, *found])


def _read(source: Any, reader: Reader) -> np.ndarray:
    return reader.read(source.path) if source.image is None else source.image
