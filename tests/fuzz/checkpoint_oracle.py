"""Other readers of checkpoints, and the comparison of what they read."""

import json
import math
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

ALLOWED = [
    *(HistoryBuffer, HistoryBuffer.min, HistoryBuffer.max, HistoryBuffer.mean),
    *(HistoryBuffer.current, OneCycleParamScheduler, OneCycleParamScheduler._annealing_cos),
    *(getattr, np.ndarray, np.dtype, np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]),
    *(type(np.dtype(code)) for code in ("f8", "i8", "f4", "S1", "u1", "i4", "i2", "f2", "?")),
]
DTYPES = {"F32": "f4", "F64": "f8", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1", "I8": "i1"}


class NumpyUnpickler(pickle.Unpickler):
    """Arrays and plain values."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("_codecs", "encode"), ("collections", "OrderedDict")):
            return super().find_class(module, name)
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(name)


def read_otherwise(path: Path, kind: str) -> Any:
    """Reads a checkpoint by code that is not the project's."""
    if kind == "detectron2":
        with open(path, "rb") as file:
            return _to_tensors(NumpyUnpickler(file, encoding="latin1").load())
    if kind == "sharded":
        places = json.loads(path.read_bytes())["weight_map"]
        parts = {name: _read_safetensors(path.parent / name) for name in set(places.values())}
        return {key: parts[name][key] for key, name in places.items()}
    if kind == "safetensors":
        return _read_safetensors(path)
    with torch.serialization.safe_globals(ALLOWED):
        return torch.load(path, weights_only=True, map_location="cpu")


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for key, entry in header.items():
        start, end = entry["data_offsets"]
        data = content[8 + length + start : 8 + length + end]
        values = np.frombuffer(data, DTYPES[entry["dtype"]]).reshape(entry["shape"])
        found[key] = torch.from_numpy(values.copy())
    return found


def _to_tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_tensors(item) for key, item in value.items()}
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in "biufc"
    return torch.from_numpy(value) if is_array else value


def is_same(found: Any, wanted: Any) -> bool:
    """Whether two contents are equal to the bit."""
    if isinstance(found, torch.Tensor):
        return (
            isinstance(wanted, torch.Tensor)
            and (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            and found.detach().numpy().tobytes() == wanted.detach().numpy().tobytes()
        )
    if isinstance(found, HistoryBuffer):
        return isinstance(wanted, HistoryBuffer) and is_same(vars_of(found), vars_of(wanted))
    if isinstance(found, np.ndarray | np.generic):
        same = type(found) is type(wanted) and found.dtype == wanted.dtype
        return same and found.shape == wanted.shape and found.tobytes() == wanted.tobytes()
    if isinstance(found, dict):
        same = isinstance(wanted, dict) and found.keys() == wanted.keys()
        return same and all(is_same(value, wanted[key]) for key, value in found.items())
    if isinstance(found, list | tuple):
        same = type(found) is type(wanted) and len(found) == len(wanted)
        return same and all(map(is_same, found, wanted))
    if isinstance(found, float) and isinstance(wanted, float) and math.isnan(found):
        return math.isnan(wanted)
    return type(found) is type(wanted) and found == wanted


def vars_of(buffer: HistoryBuffer) -> dict:
    names = ("_log_history", "_count_history", "max_length")
    return {name: getattr(buffer, name, None) for name in names}


def use(content: Any) -> None:
    """Touches every value; what is not what it says to be would end the process."""
    if isinstance(content, torch.Tensor):
        content.detach().clone().flatten().tolist() if content.numel() < 10**6 else content.sum()
    elif isinstance(content, np.ndarray):
        content.copy().tolist()
    elif isinstance(content, HistoryBuffer):
        content.data[0].sum()
        content.mean() if len(content.data[0]) else None
    elif isinstance(content, dict | OrderedDict):
        for key, value in content.items():
            repr(key)
            use(value)
    elif isinstance(content, list | tuple | set | frozenset):
        for value in content:
            use(value)
    else:
        repr(content)
