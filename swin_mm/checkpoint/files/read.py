"""Recognises the kind of a file of weights, and reads it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swin_mm.checkpoint.files.archive import ZIP_MAGIC, Archive
from swin_mm.checkpoint.files.sharded import read_sharded
from swin_mm.checkpoint.files.torch_files import is_legacy, read_archive, read_legacy, read_pickle
from swin_mm.checkpoint.files.values import FileContentError

INDEX_SUFFIX = ".index.json"
MAX_INDEX_BYTES = 2**26
# How files of other kinds begin.
OTHERS = {
    b"version https://git-lfs": "it is a Git LFS pointer; fetch the file itself: `git lfs pull`",
    b"{": f"it is JSON; only the index of weights in several files, *{INDEX_SUFFIX}, is read",
    b"\x89HDF": "it is a file of HDF5, such as Keras writes; convert it to PyTorch first",
    b"\x93NUMPY": "it is an array of NumPy; save a dict of weights by torch.save",
    b"\x1f\x8b": "it is compressed by gzip; unpack it first",
    b"GGUF": "it is a file of GGUF, for language models",
}


def read_file(path: Path, map_location: Any = "cpu") -> Any:
    """Reads a file of weights as data; its content, not its name, says what it is.

    Args:
        path: A file of `torch.save`, of safetensors, a pickle as of Detectron2, whose arrays
            become tensors, the index of weights in several files, `*.index.json`, or the folder
            of a sharded training.
        map_location: As in `torch.load`; of safetensors, tensors stay on the CPU where this is a
            function or a table.

    Raises:
        FileContentError: The file is damaged, holds what weights do not need, or asks for code.
        ModuleNotFoundError: safetensors is needed and not installed.
        OSError: It cannot be opened.
    """
    if path.is_dir():
        return read_sharded(path, map_location)
    with open(path, "rb") as file:
        start = file.read(512)
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path, map_location)
    if start.startswith(ZIP_MAGIC):
        with Archive(path) as archive:
            return read_archive(archive, map_location)
    if is_safetensors(start):
        return _read_safetensors(path, map_location)
    if reason := _explain_other(start):
        raise FileContentError(reason)
    content = path.read_bytes()
    memory = io.BytesIO(content)
    if is_legacy(memory):
        return read_legacy(memory, len(content), map_location)
    return _arrays_to_tensors(read_pickle(memory))


def is_safetensors(start: bytes) -> bool:
    """Recognises safetensors: the length of its header in 8 bytes, and the header in JSON."""
    # No pickle or zip archive has a brace there: the one has its first opcodes, the other a date.
    return start[8:9] == b"{" and start[6:8] == bytes(2)


def _explain_other(start: bytes) -> str | None:
    """Names what people have in place of a file of weights."""
    start = start.lstrip()
    if not start:
        return "the file is empty"
    if start.lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is an HTML page, as a failed download leaves it; fetch the file itself"
    return next((reason for magic, reason in OTHERS.items() if start.startswith(magic)), None)


def _read_safetensors(path: Path, map_location: Any) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    is_device = isinstance(map_location, str | torch.device)
    try:
        return load_file(path, device=str(map_location) if is_device else "cpu")
    except OSError:
        raise
    # Rust panics are no `Exception`.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise FileContentError(
            f"safetensors cannot read it ({error}); is it whole? Copy or download it again"
        ) from error


def _read_shards(index: Path, map_location: Any) -> dict[str, torch.Tensor]:
    """Reads weights that are spread over several files beside their index."""
    if index.stat().st_size > MAX_INDEX_BYTES:
        raise FileContentError("it is too large for an index of weights")
    try:
        content = json.loads(index.read_bytes())
        places = content["weight_map"]
        names = sorted(set(places.values()))
        is_plain = all(isinstance(name, str) for name in names)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FileContentError(
            'it is no index of weights, which is {"weight_map": {NAME: FILE, ...}}'
        ) from error
    if not names or not is_plain:
        raise FileContentError("the index names no files")
    if outside := [n for n in names if Path(n).name != n or "\\" in n or n.endswith(INDEX_SUFFIX)]:
        raise FileContentError(f"the index names {outside[0]!r}, wanted a file beside it")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise FileContentError(
            f"{len(missing)} of its {len(names)} files are missing beside it: {', '.join(missing)}"
        )
    weights: dict[str, torch.Tensor] = {}
    for name in names:
        try:
            shard = read_file(index.parent / name, map_location)
        except FileContentError as error:
            error.args = (f"of its file {name}: {error}",)
            raise
        wanted = [key for key, place in places.items() if place == name]
        if not isinstance(shard, dict) or (absent := [key for key in wanted if key not in shard]):
            lacking = f"lacks {len(absent)} weights, such as {absent[0]}" if shard else "is empty"
            raise FileContentError(f"its file {name} {lacking}")
        weights |= {key: shard[key] for key in wanted}
    return weights


def _arrays_to_tensors(content: Any) -> Any:
    """Makes tensors of the arrays in the dicts of a plain pickle."""
    if isinstance(content, dict):
        return {key: _arrays_to_tensors(value) for key, value in content.items()}
    if isinstance(content, np.ndarray) and content.dtype.kind in "biufc":
        return torch.from_numpy(content)
    return content
