"""Plain Python objects that scripts keep beside weights, from checked arguments."""

import argparse
import collections
import datetime
import os
import pathlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.logging import HistoryBuffer
from mmengine.optim import OneCycleParamScheduler

from swin_mm.checkpoint.files.values import (
    ForbiddenError,
    Global,
    check_key,
    require,
    to_mapping,
    to_text,
)


def _history(*_: Any) -> HistoryBuffer:
    return HistoryBuffer()


def set_history(buffer: HistoryBuffer, state: Any) -> None:
    state = to_mapping(state)
    values, counts = state.get("_log_history"), state.get("_count_history")
    for array in (values, counts):
        plain = isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in "biuf"
        require(plain, "a history of logged values is no list of numbers")
    require(len(values) == len(counts), "a history of logged values lacks counts")
    length = state.get("max_length", buffer.max_length)
    require(type(length) is int and length > 0, "a history of logged values has no length")
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
    require(isinstance(values, list | tuple), "a set is made of no list")
    return [check_key(value) for value in values]


def _pairs(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A dict of pairs, as old protocols write it, or of another dict."""

    def make(items: Any = ()) -> Any:
        if isinstance(items, dict):
            return kind(items)
        require(isinstance(items, list | tuple), "a dict is made of no list")
        for pair in items:
            require(isinstance(pair, list | tuple) and len(pair) == 2, "a dict is made of no pair")
        names = _keys([pair[0] for pair in items])
        return kind(zip(names, (pair[1] for pair in items), strict=True))

    return make


FACTORIES = (None, dict, list, set, int, float, str, bool, collections.OrderedDict)


def _default_dict(factory: Any = None, *items: Any) -> collections.defaultdict:
    require(any(factory is kind for kind in FACTORIES), "a defaultdict makes no plain values")
    return collections.defaultdict(factory, _pairs(dict)(*items))


def _deque(values: Any = (), length: Any = None) -> collections.deque:
    require(isinstance(values, list | tuple), "a deque is made of no list")
    require(length is None or type(length) is int, "a deque has no length")
    return collections.deque(values, length)


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


def _path(kind: str) -> Callable[..., pathlib.PurePath]:
    is_native = kind == ("WindowsPath" if os.name == "nt" else "PosixPath")
    pure = pathlib.PureWindowsPath if "Windows" in kind else pathlib.PurePosixPath
    path = pathlib.Path if is_native or kind == "Path" else pure
    return lambda *parts: path(*map(to_text, parts))


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    require(encoding in ("latin1", "latin-1"), f"bytes are written as {encoding!r}")
    return to_text(text).encode("latin1")


def _bytes(kind: type) -> Callable[..., Any]:
    def make(data: Any = b"", encoding: Any = None) -> Any:
        data = data if encoding is None else _encode(data, encoding)
        require(isinstance(data, bytes | bytearray), "bytes are made of no text")
        return kind(data)

    return make


def _plain(kind: Callable[..., Any], *kinds: type) -> Callable[..., Any]:
    """Passes on arguments, if they are of the given types."""

    def make(*arguments: Any) -> Any:
        require(all(type(value) in kinds for value in arguments), f"a {kind} of no plain values")
        return kind(*arguments)

    return make


def _time(kind: Any) -> Callable[..., Any]:
    """Bytes are a time of day or a date only if their text is one."""
    make = _plain(kind, int, str, bytes, type(None), datetime.timezone)
    return lambda *arguments: kind.fromisoformat(make(*arguments).isoformat())


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

OBJECT_BUILDERS: dict[str, Callable[..., Any]] = {
    "torch.torch_version.TorchVersion": _plain(str, str),
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
    "argparse.Namespace": _plain(argparse.Namespace),
    "types.SimpleNamespace": _plain(types.SimpleNamespace),
    **{f"pathlib.{name}": _path(name) for name in _PATHS},
    "datetime.datetime": _time(datetime.datetime),
    "datetime.date": _time(datetime.date),
    "datetime.time": _time(datetime.time),
    "datetime.timedelta": _plain(datetime.timedelta, int),
    "datetime.timezone": _plain(datetime.timezone, datetime.timedelta, str),
}
