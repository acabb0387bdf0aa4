"""Loads checkpoint files; whatever is in a file, none of it is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from swin_mm.checkpoint.errors import CheckpointError
from swin_mm.checkpoint.files import FileContentError, ForbiddenError, read_file
from swin_mm.checkpoint.files.unpickle import tensors

# Which file a tensor came from: an error found while a model takes it can then name the file.
_ORIGINS = WeakIdKeyDictionary()


def load_checkpoint_file(path: str | Path, map_location: Any = "cpu") -> dict:
    """Loads a checkpoint as data; nothing in it is executed.

    Args:
        path: A file written by `torch.save`, also one written by NumPy 1 or an older PyTorch, one
            of safetensors, a `.pkl` of Detectron2, the index of weights in several files
            (`*.index.json`), or the folder of a training with `--shard`. Apart from the index, its
            name does not matter.
        map_location: As in `torch.load`; of a safetensors file, tensors stay on the CPU where this
            is a function or a table.

    Returns:
        The content of the file.

    Raises:
        CheckpointError: When the file is missing, damaged, not a checkpoint, or holds anything but
            tensors, plain values and the few types that known scripts keep beside them.
    """
    path = Path(path).expanduser()
    try:
        return _load(path, map_location)
    except FileContentError as error:
        raise CheckpointError(f"cannot load checkpoint {path}: {_explain(error)}") from error


def _load(path: Path, map_location: Any) -> dict:
    if not path.exists():
        raise FileContentError("there is no such file")
    try:
        checkpoint = read_file(path, map_location)
    except ModuleNotFoundError as error:
        raise FileContentError(
            "it is a safetensors file, and the package to read it is not installed: "
            "pip install safetensors"
        ) from error
    except PermissionError as error:
        raise FileContentError("you have no permission to read it") from error
    # Of a device that is not there, or too small.
    except (OSError, RuntimeError, MemoryError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FileContentError(f"reading it failed ({reason or type(error).__name__})") from error
    if not isinstance(checkpoint, dict):
        raise FileContentError(f"it holds a {type(checkpoint).__name__}, wanted a dict")
    for tensor in tensors(checkpoint):
        _ORIGINS[tensor] = str(path)
    return checkpoint


def origin_of(state: Mapping[str, Any]) -> str | None:
    """Names the file that the tensors of `state` were loaded from, as far as it is known."""
    origins = (_ORIGINS.get(value) for value in state.values() if isinstance(value, Tensor))
    return next((origin for origin in origins if origin is not None), None)


def _explain(error: FileContentError) -> str:
    if isinstance(error, ForbiddenError):
        return (
            f"it carries code: it asks for {error}, and nothing from a file is ever executed. "
            "Get a file with the weights alone, or save its state dict anew where you trust it"
        )
    return str(error)
