"""What a pickle may build, by name: a closed table, and what gives objects their state."""

import collections
import io
import re
import types
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from swin_mm.checkpoint.files.objects import OBJECT_BUILDERS, set_history
from swin_mm.checkpoint.files.tensors import (
    STORAGE_DTYPES,
    TENSOR_BUILDERS,
    Storage,
    check_dtype,
    set_array,
)
from swin_mm.checkpoint.files.values import (
    FileContentError,
    ForbiddenError,
    Global,
    check_key,
    require,
    to_mapping,
    to_text,
)

# Names that Python 2, NumPy 2 and Python 3.13 have others for.
RENAMED = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^__builtin__\.", "builtins."),
        (r"^builtins\.xrange$", "builtins.range"),
        (r"^builtins\.unicode$", "builtins.str"),
        (r"^builtins\.long$", "builtins.int"),
        (r"^copy_reg\.", "copyreg."),
        (r"^numpy\._core\.", "numpy.core."),
        (r"^pathlib\._local\.", "pathlib."),
    )
]


def find_global(module: str, name: str) -> Any:
    """Gives what stands for a name; raises ForbiddenError where it is in none of the tables."""
    full = f"{module}.{name}"
    for pattern, new in RENAMED:
        full = pattern.sub(new, full)
    if full in VALUES:
        return VALUES[full]
    if full in BUILDERS or full in STORAGE_DTYPES or full in NAMES:
        return Global(full)
    raise ForbiddenError(full.removeprefix("builtins."))


def build(target: Any, arguments: Any) -> Any:
    """Builds what a pickle would have called a function for.

    Raises:
        FileContentError: The file may not build this, or not from these arguments.
    """
    name = target.name if type(target) is Global else None
    if isinstance(target, type):
        name = f"{target.__module__}.{target.__qualname__}"
    if name not in BUILDERS or type(arguments) is not tuple:
        raise FileContentError(f"it calls a {type(target).__name__}")
    return BUILDERS[name](*arguments)


def set_state(target: Any, state: Any) -> None:
    """Gives an object the state that a file has for it; attributes of no use are left out."""
    if isinstance(target, np.ndarray):
        set_array(target, state)
    elif isinstance(target, np.dtype):
        check_dtype(target, state)
    elif type(target) is HistoryBuffer:
        set_history(target, state)
    elif type(target) in (Namespace, types.SimpleNamespace):
        vars(target).update({to_text(key): value for key, value in to_mapping(state).items()})
    elif type(target) is dict:  # classes of configs, whose state is their content
        target.update({check_key(key): value for key, value in to_mapping(state).items()})
    elif type(target) is collections.OrderedDict:
        # Versions of modules, which `load_state_dict` looks at.
        metadata = to_mapping(state).get("_metadata")
        if isinstance(metadata, dict):
            vars(target)["_metadata"] = metadata
    else:
        raise FileContentError(f"it sets the state of a {type(target).__name__}")


def _typed(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """A tensor with attributes, which are dropped."""
    tensor = build(function, arguments)
    require(isinstance(tensor, Tensor), "a tensor is none")
    return tensor


def _storage_of_bytes(data: Any) -> Storage:
    """The memory of a tensor that was pickled without `torch.save`: a file within the file."""
    from swin_mm.checkpoint.files.torch_files import read_legacy

    require(isinstance(data, bytes), "a tensor without memory")
    storage = read_legacy(io.BytesIO(data), len(data), "cpu")
    require(type(storage) is Storage, "a tensor without memory")
    return storage


def _old_object(kind: Any, base: Any = None, state: Any = None) -> Any:
    """What `object.__reduce__` of old protocols writes."""
    require(base is object or state is None or base is dict, "an object of unknown base")
    return build(kind, () if base is object or not state else (state,))


_PLAIN_TYPES = (
    *(dict, list, tuple, set, frozenset, object, int, float, str, bool, bytes, complex),
    collections.OrderedDict,
)
_DTYPES = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]

# Names that stand for themselves.
VALUES: dict[str, Any] = {
    **{f"{kind.__module__}.{kind.__name__}": kind for kind in _PLAIN_TYPES},
    **{str(dtype): dtype for dtype in _DTYPES if not re.search(r"\.q(u?)int", str(dtype))},
}

# Names that others are built with, which build nothing themselves.
NAMES = (
    "numpy.ndarray",
    "torch.Tensor",
    "torch._tensor.Tensor",
    "torch.nn.parameter.Parameter",
    "mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler",
)

# What each name builds. Values of `VALUES` are built by the entry of their name.
BUILDERS: dict[str, Callable[..., Any]] = {
    **TENSOR_BUILDERS,
    **OBJECT_BUILDERS,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.storage._load_from_bytes": _storage_of_bytes,
    "copyreg._reconstructor": _old_object,
}
