"""Reads the predictions that `test --out FILE.pkl` keeps, without running code from the file."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_mm.checkpoint.files import FileContentError, ForbiddenError, read_pickle
from swin_mm.text import printable


class PredictionError(ValueError):
    """Kept predictions that cannot be used."""


def load_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Reads a pickle as `test --out` of this project, of mmdet and of mmseg write it.

    Returns:
        One dict for each image.

    Raises:
        PredictionError: The file is no such pickle, or wants to run code.
        OSError: It cannot be read.
    """
    data = Path(path).expanduser().read_bytes()
    try:
        content = read_pickle(io.BytesIO(data))
    except ForbiddenError as error:
        reason = f"it asks for {error}, which predictions do not need; nothing in it was run"
        raise PredictionError(printable(f"{path}: {reason}")) from None
    except FileContentError as error:
        raise PredictionError(printable(f"{path} is no file of predictions: {error}")) from error
    if not (isinstance(content, list) and all(isinstance(entry, dict) for entry in content)):
        raise PredictionError(f"{path} must hold a list with a dict for each image")
    if not content:
        raise PredictionError(f"{path} has no predictions")
    return content


def to_numpy(value: Any) -> np.ndarray:
    """A tensor or an array as an array on the CPU; half precision widened."""
    if isinstance(value, torch.Tensor):
        value = value.float() if value.is_floating_point() else value
        return value.detach().cpu().numpy()
    return np.asarray(value)


def by_image(entries: list[dict], key: Callable[[dict], Any], wanted: list[Any]) -> list[dict]:
    """Returns the prediction of each `wanted` image, which `key` finds in an entry.

    Raises:
        PredictionError: Some image has no prediction, or some prediction is of no image.
    """
    found = {key(entry): entry for entry in entries}
    missing = [image for image in wanted if image not in found]
    strange = set(found) - set(wanted)
    if missing or strange:
        example = missing[0] if missing else next(iter(strange))
        raise PredictionError(
            f"predictions and test data are not of the same images: {len(missing)} images lack "
            f"predictions and {len(strange)} predictions lack images, such as {example}"
        )
    return [found[image] for image in wanted]
