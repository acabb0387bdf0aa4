"""What a pickle may build, by name, and how each is built from checked arguments."""

import argparse
import collections
import datetime
import io
import math
import os
import pathlib
import pickle
import re
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler
from torch import Tensor, nn

Namespace = argparse.Namespace

# Elements of a tensor that repeats a smaller storage, as `expand` makes them.
MAX_REPEATED = 2**26
MAX_DIMS = 64
# Numbers and texts; the state of object and structured types is no plain data.
PLAIN_DTYPE = re.compile(r"[<=|]?([?bBhHiIlLqQefdgFDG]|[biufc]\d{1,2}|[SU]\d{1,6})")
_NUMBERS = (int, float, str, bool)
KEYS = (str, bytes, int, float, bool, type(None))


class FileContentError(pickle.UnpicklingError):
    """Content that a file of weights or predictions does not have."""


class ForbiddenError(FileContentError):
    """A file asks for a function or class that is no data; the argument is its name."""


class Global(NamedTuple):
    """A name in a file, which only `build` can make something of."""

    name: str

    def __str__(self) -> str:
        return self.name


class Storage(NamedTuple):
    """Memory of tensors."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"bare memory of {len(self.bytes)} bytes"


def find_global(module: str, name: str) -> Any:
    """Gives what stands for a name.

    Raises:
        ForbiddenError: The name is in none of the tables.
    """
    module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
    module = module.replace("numpy._core", "numpy.core").replace("pathlib._local", "pathlib")
    full = f"{module}.{name}"
    if full in VALUES:
        return VALUES[full]
    if full in BUILDERS or full in STORAGE_DTYPES or full in NAMES:
        return Global(full)
    raise ForbiddenError(full.removeprefix("builtins."))


def build(target: Any, arguments: Any) -> Any:
    """Builds what a pickle would have called a function for.

    Args:
        target: What `find_global` gave.
        arguments: A tuple.

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
    """Gives an object the state that a file has for it; attributes of no use are left out.

    Raises:
        FileContentError: The object has no state, or not this one.
    """
    if isinstance(target, np.ndarray):
        _set_array(target, state)
    elif isinstance(target, np.dtype):
        _check_dtype(target, state)
    elif type(target) is HistoryBuffer:
        _set_history(target, state)
    elif type(target) in (Namespace, types.SimpleNamespace):
        vars(target).update({_text(key): value for key, value in _mapping(state).items()})
    elif type(target) is dict:  # classes of configs, whose state is their content
        target.update({check_key(key): value for key, value in _mapping(state).items()})
    elif type(target) is collections.OrderedDict:
        # Versions of modules, which `load_state_dict` looks at.
        metadata = _mapping(state).get("_metadata")
        if isinstance(metadata, dict):
            target._metadata = metadata
    else:
        raise FileContentError(f"it sets the state of a {type(target).__name__}")


def check_key(key: Any) -> Any:
    """Allows plain keys only: hashing nested tuples can take for ever."""
    parts = key if type(key) is tuple else (key,)
    if not all(type(part) in KEYS for part in parts):
        raise FileContentError(f"a key is a {type(key).__name__}, not a text or a number")
    return key


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise FileContentError(message)


def _mapping(value: Any) -> dict:
    _require(isinstance(value, dict), f"a state is a {type(value).__name__}, not a dict")
    return value


def _text(value: Any) -> str:
    _require(type(value) is str, f"{type(value).__name__} where a text was expected")
    return value


def _sizes(values: Any, what: str) -> tuple[int, ...]:
    is_plain = isinstance(values, tuple | list) and all(type(v) is int for v in values)
    _require(is_plain and len(values) <= MAX_DIMS, f"{what} of a tensor are not integers")
    _require(all(0 <= v < 2**62 for v in values), f"{what} of a tensor are {tuple(values)}")
    return tuple(values)


# Tensors


def make_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
) -> Tensor:
    """Makes a tensor of memory, all of which lies inside.

    Args:
        storage: A `Storage`.
        offset: Of the first element, in elements.
        size: The shape.
        stride: In elements.
        dtype: By default that of the storage.

    Raises:
        FileContentError: They are of other types, or reach outside of the memory.
    """
    _require(type(storage) is Storage, "a tensor without memory")
    dtype = storage.dtype if dtype is None else dtype
    _require(isinstance(dtype, torch.dtype), "a tensor of unknown type")
    size, stride = _sizes(size, "sizes"), _sizes(stride, "strides")
    (offset,) = _sizes((offset,), "offsets")
    _require(len(size) == len(stride), f"a tensor has {len(size)} sizes, {len(stride)} strides")
    there, numel = len(storage.bytes) // dtype.itemsize, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    _require(
        offset <= there and (numel == 0 or last < there),
        f"a tensor of {size} reaches outside of its {there} stored values",
    )
    _require(numel <= max(there, MAX_REPEATED), f"a tensor of {size} repeats {there} values")
    empty = torch.empty(0, dtype=dtype, device=storage.bytes.device)
    return empty.set_(storage.bytes, offset, size, stride)


def _tensor_v2(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    _require(not metadata, "a tensor is marked as conjugated or negated")
    tensor = make_tensor(storage, offset, size, stride)
    return tensor.requires_grad_() if requires_grad is True else tensor


def _tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    _require(not metadata, "a tensor is marked as conjugated or negated")
    tensor = make_tensor(storage, offset, size, stride, dtype)
    return tensor.requires_grad_() if requires_grad is True else tensor


def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None, state: Any = None) -> Any:
    _require(isinstance(data, Tensor), "a parameter is no tensor")
    return nn.Parameter(data.detach(), requires_grad is True)


def _typed(function: Any, kind: Any, arguments: Any, state: Any) -> Tensor:
    """A tensor with attributes, which are dropped."""
    tensor = build(function, arguments)
    _require(isinstance(tensor, Tensor), "a tensor is none")
    return tensor


def _from_array(data: Any, dtype: Any, device: Any, requires_grad: Any) -> Tensor:
    """Tensors of devices such as TPUs come as arrays or as tensors of the CPU."""
    _require(isinstance(data, np.ndarray | Tensor), "a tensor is none")
    _require(isinstance(dtype, torch.dtype), "a tensor of unknown type")
    return torch.tensor(data, dtype=dtype) if isinstance(data, np.ndarray) else data.to(dtype)


def _storage_of_bytes(data: Any) -> Storage:
    """The memory of a tensor that was pickled without `torch.save`."""
    from swin_mm.checkpoint.files.torch_files import read_legacy

    _require(isinstance(data, bytes), "a tensor without memory")
    storage = read_legacy(io.BytesIO(data), len(data), "cpu")
    _require(type(storage) is Storage, "a tensor without memory")
    return storage


def _device(kind: Any, index: Any = None) -> torch.device:
    return torch.device(_text(kind)) if index is None else torch.device(_text(kind), int(index))


# Arrays


def _dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    code = code.decode("ascii") if isinstance(code, bytes) else _text(code)
    _require(PLAIN_DTYPE.fullmatch(code) is not None, f"an array of {code}")
    return np.dtype(code)


def _check_dtype(dtype: np.dtype, state: Any) -> None:
    """The state is version, byte order, and six entries of structured types and of texts."""
    _require(type(state) is tuple and len(state) == 8, "a type of numbers is not plain")
    _, order, subtype, names, fields, size, _, _ = state
    order = order.decode("latin1") if isinstance(order, bytes) else order
    plain = subtype is names is fields is None and size in (-1, dtype.itemsize)
    _require(plain and order in ("<", "=", "|"), "a type of numbers is not plain")


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    _require(kind == Global("numpy.ndarray"), "an array is of an unknown class")
    return np.empty(0, dtype="b")


def _set_array(array: np.ndarray, state: Any) -> None:
    _require(type(state) is tuple and len(state) == 5, "the state of an array is not one")
    _require(array.shape == (0,), "an array is filled twice")
    _, shape, dtype, is_fortran, data = state
    data = data.encode("latin1") if isinstance(data, str) else data
    shape = _check_array(data, dtype, shape)
    array.__setstate__((1, shape, dtype, bool(is_fortran), bytes(data)))


def _check_array(data: Any, dtype: Any, shape: Any) -> tuple[int, ...]:
    _require(isinstance(data, bytes | bytearray), "an array without its bytes")
    is_plain = isinstance(dtype, np.dtype) and dtype.kind in "biufcSU" and dtype.itemsize > 0
    _require(is_plain, "an array of unknown type")
    shape = (shape,) if type(shape) is int else shape
    shape = _sizes(shape, "sizes")
    _require(len(shape) <= 32, "an array has too many dimensions")
    wanted = math.prod(shape) * dtype.itemsize
    _require(wanted == len(data), f"an array of {shape} has {len(data)} bytes, wanted {wanted}")
    return shape


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    shape = _check_array(data, dtype, shape)
    _require(order in ("C", "F") and axes is None, "an array in an unknown order")
    return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    _check_array(data, dtype, ())
    return np.frombuffer(data, dtype)[0]


# What scripts keep beside weights


def _history(*_: Any) -> HistoryBuffer:
    return HistoryBuffer()


def _set_history(buffer: HistoryBuffer, state: Any) -> None:
    state = _mapping(state)
    values, counts = state.get("_log_history"), state.get("_count_history")
    for array in (values, counts):
        plain = isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "biuf"
        _require(plain, "a history of logged values is no list of numbers")
    _require(len(values) == len(counts), "a history of logged values lacks counts")
    length = state.get("max_length", buffer.max_length)
    _require(type(length) is int and length > 0, "a history of logged values has no length")
    buffer._log_history, buffer._count_history = values.copy(), counts.copy()
    buffer.max_length = length


_METHODS = {
    **{("HistoryBuffer", name): getattr(HistoryBuffer, name) for name in ("min", "max", "mean")},
    ("HistoryBuffer", "current"): HistoryBuffer.current,
    ("OneCycleParamScheduler", "_annealing_cos"): OneCycleParamScheduler._annealing_cos,
    ("OneCycleParamScheduler", "_annealing_linear"): OneCycleParamScheduler._annealing_linear,
}


def _method(owner: Any, name: Any) -> Any:
    """The methods that mmengine's checkpoints name, no more."""
    owner = str(owner).rpartition(".")[2] if type(owner) is Global else None
    if type(name) is not str or (owner, name) not in _METHODS:
        raise ForbiddenError(f"getattr({owner or '...'},{name!r})")
    return _METHODS[owner, name]


def _keys(values: Any = ()) -> list:
    _require(isinstance(values, list | tuple), "a set is made of no list")
    return [check_key(value) for value in values]


def _pairs(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A dict of pairs, as old protocols write it, or of another dict."""

    def make(items: Any = ()) -> Any:
        if isinstance(items, dict):
            return kind(items)
        _require(isinstance(items, list | tuple), "a dict is made of no list")
        for pair in items:
            _require(isinstance(pair, list | tuple) and len(pair) == 2, "a dict is made of no pair")
        names = _keys([pair[0] for pair in items])
        return kind(zip(names, (pair[1] for pair in items), strict=True))

    return make


def _default_dict(factory: Any = None, *items: Any) -> collections.defaultdict:
    _require(any(factory is kind for kind in FACTORIES), "a defaultdict makes no plain values")
    return collections.defaultdict(factory, _pairs(dict)(*items))


def _deque(values: Any = (), length: Any = None) -> collections.deque:
    _require(isinstance(values, list | tuple), "a deque is made of no list")
    _require(length is None or type(length) is int, "a deque has no length")
    return collections.deque(values, length)


def _path(kind: str) -> Callable[..., pathlib.PurePath]:
    is_native = kind == ("WindowsPath" if os.name == "nt" else "PosixPath")
    pure = pathlib.PureWindowsPath if "Windows" in kind else pathlib.PurePosixPath
    path = pathlib.Path if is_native or kind == "Path" else pure
    return lambda *parts: path(*map(_text, parts))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    _require(encoding in ("latin1", "latin-1"), f"bytes are written as {encoding!r}")
    return _text(text).encode("latin1")


def _bytes(kind: type) -> Callable[..., Any]:
    def make(data: Any = b"", encoding: Any = None) -> Any:
        data = data if encoding is None else _encode(data, encoding)
        _require(isinstance(data, bytes | bytearray), "bytes are made of no text")
        return kind(data)

    return make


def _plain(kind: Callable[..., Any], *kinds: type) -> Callable[..., Any]:
    """Passes on arguments, if they are of the given types."""

    def make(*arguments: Any) -> Any:
        _require(all(type(value) in kinds for value in arguments), f"a {kind} of no plain values")
        return kind(*arguments)

    return make


def _time(kind: Any) -> Callable[..., Any]:
    """Bytes are a time of day or a date only if their text is one."""
    make = _plain(kind, *_NUMBERS, bytes, type(None), datetime.timezone)
    return lambda *arguments: kind.fromisoformat(make(*arguments).isoformat())


def _old_object(kind: Any, base: Any = None, state: Any = None) -> Any:
    """What `object.__reduce__` of old protocols writes."""
    _require(base is object or state is None or base is dict, "an object of unknown base")
    return build(kind, () if base is object or not state else (state,))


FACTORIES = (None, dict, list, set, int, float, str, bool, collections.OrderedDict)
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}

# Names that stand for themselves.
VALUES: dict[str, Any] = {
    **{f"builtins.{kind.__name__}": kind for kind in (dict, list, tuple, set, frozenset, object)},
    **{f"builtins.{kind.__name__}": kind for kind in (int, float, str, bool, bytes, complex)},
    "collections.OrderedDict": collections.OrderedDict,
    **{name: dtype for name, dtype in _DTYPES.items() if not re.search(r"\.q(u?)int", name)},
}

_DICT_CLASSES = (
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "addict.addict.Dict",
    "easydict.EasyDict",
    "builtins.dict",
)
_NODE_CLASSES = (
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "collections.OrderedDict",
)

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
    "torch._utils._rebuild_tensor": make_tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_array,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_array,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.storage._load_from_bytes": _storage_of_bytes,
    "torch.Size": lambda *sizes: torch.Size(_sizes(*sizes, "sizes")),
    "torch.device": _device,
    "torch.torch_version.TorchVersion": _plain(str, str),
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "mmengine.logging.history_buffer.HistoryBuffer": _history,
    "builtins.getattr": _method,
    "builtins.set": lambda *values: set(_keys(*values)),
    "builtins.frozenset": lambda *values: frozenset(_keys(*values)),
    "builtins.bytes": _bytes(bytes),
    "builtins.bytearray": _bytes(bytearray),
    "builtins.complex": _plain(complex, int, float),
    "builtins.slice": _plain(slice, int, type(None)),
    "builtins.range": _plain(range, int),
    "builtins.list": _plain(list),
    "builtins.tuple": _plain(tuple),
    "_codecs.encode": _encode,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _pairs(collections.Counter),
    "collections.deque": _deque,
    **{name: _pairs(dict) for name in _DICT_CLASSES},
    **{name: _pairs(collections.OrderedDict) for name in _NODE_CLASSES},
    "argparse.Namespace": _plain(Namespace),
    "types.SimpleNamespace": _plain(types.SimpleNamespace),
    **{
        f"pathlib.{name}": _path(name)
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "datetime.datetime": _time(datetime.datetime),
    "datetime.date": _time(datetime.date),
    "datetime.time": _time(datetime.time),
    "datetime.timedelta": _plain(datetime.timedelta, int),
    "datetime.timezone": _plain(datetime.timezone, datetime.timedelta, str),
    "copyreg._reconstructor": _old_object,
}

STORAGE_DTYPES = {
    f"{module}.{name}": dtype
    for dtype, name in torch.storage._dtype_to_storage_type_map().items()
    if not name.startswith("Q")
    for module in ("torch", "torch.cuda")
} | {"torch.storage.UntypedStorage": torch.uint8, "torch.UntypedStorage": torch.uint8}
