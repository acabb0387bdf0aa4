"""Reads checkpoint files without ever executing code from them.

A `.safetensors` file holds tensors and nothing else.

A `.pth` file is a pickle, and a pickle can call any function while it is read. `torch.load` with
`weights_only=True` refuses all but tensors and plain values. mmengine's checkpoints hold a little
more (logged values, as NumPy arrays within `HistoryBuffer`), and those of Microsoft's and timm's
scripts their arguments; exactly that is allowed here.
"""

import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from swin_mm.checkpoint.errors import CheckpointError

# Which file a tensor came from: an error found while a model takes it can then name the file.
_ORIGINS = WeakIdKeyDictionary()

_ONE_CYCLE = "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler"

# Methods that mmengine's checkpoints name: (owner, name) -> method.
_SAVED_METHODS = {
    **{(HistoryBuffer, name): getattr(HistoryBuffer, name) for name in ("min", "max", "mean")},
    (HistoryBuffer, "current"): HistoryBuffer.current,
    (_ONE_CYCLE, "_annealing_cos"): OneCycleParamScheduler._annealing_cos,
    (_ONE_CYCLE, "_annealing_linear"): OneCycleParamScheduler._annealing_linear,
}


def _get_saved_method(owner: Any, name: str) -> Any:
    """Stands in for `getattr` when a checkpoint is read; knows a handful of methods, no more."""
    if (owner, name) not in _SAVED_METHODS:
        raise pickle.UnpicklingError(f"Unsupported global: GLOBAL getattr(...,{name!r})")
    return _SAVED_METHODS[owner, name]


@cache
def _safe_globals() -> list[Any]:
    """What known scripts save beyond `torch`'s own list: values, or (value, name in the file)."""
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    # Numbers and strings only: the state of an object or structured dtype is not plain data.
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?SU"
    # `bytes` is how an empty array is written.
    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, bytes]
    allowed += {type(np.dtype(code)) for code in codes}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2
        allowed += [(reconstruct, f"{module}._reconstruct"), (scalar, f"{module}.scalar")]
    allowed += [
        (dict, "mmengine.config.config.ConfigDict"),
        (OrderedDict, "yacs.config.CfgNode"),  # a dict with attributes, as an OrderedDict may be
        Namespace,
        (_get_saved_method, "builtins.getattr"),
        (_ONE_CYCLE, _ONE_CYCLE),  # a name is all that _get_saved_method needs of the class
    ]
    return allowed


def allow_checkpoint_types() -> None:
    """Lets every `torch.load` of this process read mm checkpoints with `weights_only=True`."""
    torch.serialization.add_safe_globals(_safe_globals())


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu") -> dict:
    """Loads a checkpoint; whatever is in the file, none of it is executed.

    Args:
        path: A file written by `torch.save`, also one written by NumPy 1 or an older PyTorch, or
            one of safetensors; its name does not matter.
        map_location: As in `torch.load`; of a safetensors file, tensors stay on the CPU where this
            is a function or a table.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: When the file is missing, damaged, not a checkpoint, or holds anything but
            tensors, plain values and the few types of mmengine's own checkpoints.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise CheckpointError(f"cannot load checkpoint {path}: {found}")
    try:
        if _is_safetensors(path):
            checkpoint = _load_safetensors(path, map_location)
        else:
            allow_checkpoint_types()
            # As a file: torch.load may take a path's name for its content.
            with open(path, "rb") as file:
                checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"cannot load checkpoint {path}: it is a safetensors file, and the package to read it "
            "is not installed: pip install safetensors"
        ) from error
    # A damaged pickle fails in any way, also with IndexError or KeyError.
    except Exception as error:
        raise CheckpointError(f"cannot load checkpoint {path}: {_explain(path, error)}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"cannot load checkpoint {path}: it holds a {type(checkpoint).__name__}, wanted a dict"
        )
    for tensor in _tensors(checkpoint):
        _ORIGINS[tensor] = str(path)
    return checkpoint


def origin_of(state: Mapping[str, Any]) -> str | None:
    """Names the file that the tensors of `state` were loaded from, as far as it is known."""
    origins = (_ORIGINS.get(value) for value in state.values() if isinstance(value, Tensor))
    return next((origin for origin in origins if origin is not None), None)


def _is_safetensors(path: Path) -> bool:
    """Tells a safetensors file: the length of its header in 8 bytes, and the header in JSON."""
    with open(path, "rb") as file:
        start = file.read(9)
    # No pickle or zip archive has a brace there: the one has its first opcodes, the other a date.
    return len(start) == 9 and start.endswith(b"{") and start[6:8] == bytes(2)


def _load_safetensors(path: Path, map_location: Any) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    is_device = isinstance(map_location, (str, torch.device))
    return load_file(path, device=str(map_location) if is_device else "cpu")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def _explain(path: Path, error: Exception) -> str:
    """Says in one line why a file could not be loaded."""
    if isinstance(error, PermissionError):
        return "you have no permission to read it"
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused and isinstance(error, pickle.UnpicklingError):
        return (
            f"it carries code: it asks for {refused[1]}, and nothing from a file is ever executed. "
            "Get a file with the weights alone, or save its state dict anew where you trust it"
        )
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "the file is empty"
    if start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is an HTML page, as a failed download leaves it; fetch the file itself"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"it is truncated at {os.path.getsize(path)} bytes; copy or download it again"
    if _is_safetensors(path):
        return f"safetensors cannot read it ({error}); is it whole? Copy or download it again"
    # What stands before it advises to read the file unsafely.
    reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
    return (
        f"PyTorch cannot read it ({reason or type(error).__name__}); is it a checkpoint, and whole?"
    )
