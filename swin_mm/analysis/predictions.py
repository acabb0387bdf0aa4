"""Reads the predictions that `test --out FILE.pkl` keeps, without running code from the file."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

# What mmdet's, mmseg's and our own files are made of, besides plain Python data. Names of NumPy's
# modules are those of its releases before 2 and since.
ALLOWED = {
    ("builtins", "bytes"),  # how old protocols write an empty one
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "Size"),
    *(("torch", name) for name in ("FloatStorage", "HalfStorage", "LongStorage", "BoolStorage")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class PredictionError(ValueError):
    """Kept predictions that cannot be used."""


def load_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Reads a file of predictions.

    Args:
        path: A pickle as `test --out` of this project, of mmdet and of mmseg write it.

    Returns:
        One dict for each image.

    Raises:
        PredictionError: The file is no such pickle, or wants to run code.
        OSError: It cannot be read.
    """
    data = Path(path).expanduser().read_bytes()
    try:
        content = _Unpickler(io.BytesIO(data)).load()
    except PredictionError as error:
        raise PredictionError(f"{path}: {error}") from None
    except Exception as error:  # bytes that are no pickle can fail in any way
        raise PredictionError(f"{path} is no file of predictions: {error}") from error
    if not (isinstance(content, list) and all(isinstance(entry, dict) for entry in content)):
        raise PredictionError(f"{path} must hold a list with a dict for each image")
    if not content:
        raise PredictionError(f"{path} has no predictions")
    return content


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage
        if (module, name) == ("_codecs", "encode"):
            return _to_bytes
        if (module, name) not in ALLOWED:
            raise PredictionError(f"it asks for {module}.{name}, which predictions do not need")
        return super().find_class(module, name)


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)


def _to_bytes(text: str, encoding: str) -> bytes:
    """Old protocols write bytes as text."""
    if encoding != "latin1":
        raise PredictionError(f"it has bytes as {encoding}, where pickles have latin1")
    return text.encode(encoding)


def to_numpy(value: Any) -> np.ndarray:
    """A tensor or an array as an array on the CPU; half precision widened."""
    if isinstance(value, torch.Tensor):
        value = value.float() if value.is_floating_point() else value
        return value.detach().cpu().numpy()
    return np.asarray(value)


def by_image(entries: list[dict], key: Callable[[dict], Any], wanted: list[Any]) -> list[dict]:
    """Brings predictions into the order of the data.

    Args:
        entries: The predictions.
        key: Tells of which image an entry is.
        wanted: The images of the data, as `key` tells them.

    Returns:
        An entry for each of `wanted`.

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
