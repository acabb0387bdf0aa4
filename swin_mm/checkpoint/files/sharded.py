"""Checkpoints in a folder, whose tensors were written by several processes, each its own part.

The folder is one of `torch.distributed.checkpoint` with a file more, `INDEX`: it holds all that is
no divided tensor, and says where the parts of those are. So that nothing in a folder is executed,
`.metadata`, a pickle with classes of PyTorch, is never read.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from swin_mm.checkpoint.files.archive import Archive
from swin_mm.checkpoint.files.torch_files import read_archive
from swin_mm.checkpoint.files.values import (
    FileContentError,
    ForbiddenError,
    require,
    to_mapping,
    to_sizes,
    to_text,
)

INDEX = "index.pth"


class Part(NamedTuple):
    """Where the part of a tensor that starts at `offsets` is: bytes in a file of the folder."""

    offsets: tuple[int, ...]
    file: str
    start: int
    length: int


class Divided(NamedTuple):
    """A divided tensor: the keys that lead to it in the checkpoint, its shape and its parts."""

    keys: tuple[str | int, ...]
    shape: tuple[int, ...]
    parts: list[Part]


def is_sharded(path: Path) -> bool:
    """Whether a path is a folder that `read_sharded` reads."""
    return (path / INDEX).is_file()


def read_sharded(folder: Path, map_location: Any = "cpu") -> dict:
    """Reads a checkpoint, with all its tensors whole.

    Raises:
        FileContentError: A file is missing or damaged, or asks for code.
    """
    checkpoint, divided = _read_index(folder, map_location)
    for tensor in divided:
        *outer, last = tensor.keys
        place: Any = checkpoint
        for key in outer:
            place = place[key]
        place[last] = _read_tensor(folder, tensor, map_location)
    return checkpoint


def _read_index(folder: Path, map_location: Any) -> tuple[dict, list[Divided]]:
    if not is_sharded(folder):
        raise FileContentError(f"it is a folder without {INDEX}, of another program or unfinished")
    with Archive(folder / INDEX) as archive:
        content = to_mapping(read_archive(archive, map_location))
    checkpoint = to_mapping(content.get("checkpoint"))
    found: Any = content.get("divided")
    require(isinstance(found, list), f"{INDEX} lists no divided tensors")
    return checkpoint, [_to_divided(item, checkpoint) for item in found]


def _to_divided(item: Any, checkpoint: dict) -> Divided:
    """Checks what an index says of one tensor."""
    keys, shape, parts = _fields(item, 3)
    place: Any = checkpoint
    require(isinstance(keys, tuple) and len(keys) > 0, "a divided tensor has no place")
    for key in keys:
        is_place = key in place if isinstance(place, dict) else _is_index(key, place)
        require(is_place, f"there is no place for {'.'.join(map(str, keys))}")
        place = place[key]
    require(isinstance(parts, list), "a divided tensor has no parts")
    return Divided(keys, to_sizes(shape, "sizes"), [_to_part(part) for part in parts])


def _is_index(key: Any, place: Any) -> bool:
    return isinstance(place, list) and type(key) is int and 0 <= key < len(place)


def _to_part(item: Any) -> Part:
    offsets, file, start, length = _fields(item, 4)
    require(Path(to_text(file)).name == file, f"{file!r} is no file beside {INDEX}")
    return Part(to_sizes(offsets, "offsets"), file, *to_sizes((start, length), "bytes"))


def _fields(item: Any, count: int) -> tuple:
    require(isinstance(item, tuple) and len(item) == count, f"{INDEX} has other fields")
    return item


def _read_part(folder: Path, part: Part, map_location: Any) -> Any:
    path = folder / part.file
    if not path.is_file():
        raise FileContentError(
            f"its file {part.file} is missing; all processes must write to one folder, which "
            "machines without a shared disk do not have"
        )
    try:
        require(part.start + part.length <= path.stat().st_size, "it is too short")
        with open(path, "rb") as file:
            file.seek(part.start)
            content = file.read(part.length)
        with Archive(content) as archive:
            return read_archive(archive, map_location)
    except FileContentError as error:
        if not isinstance(error, ForbiddenError):
            error.args = (f"of its file {part.file}: {error}",)
        raise


def _read_tensor(folder: Path, tensor: Divided, map_location: Any) -> Tensor:
    name, dims = ".".join(map(str, tensor.keys)), len(tensor.shape)
    values = [_read_part(folder, part, map_location) for part in tensor.parts]
    for part, value in zip(tensor.parts, values, strict=True):
        is_part = isinstance(value, Tensor) and value.dim() == len(part.offsets) == dims
        require(is_part, f"a part of {name} has other dimensions")
        ends = map(int.__add__, part.offsets, value.shape)
        require(all(map(int.__le__, ends, tensor.shape)), f"a part of {name} is not within it")
    if sum(value.numel() for value in values) != math.prod(tensor.shape) or not values:
        raise FileContentError(f"it lacks parts of {name}")
    whole = values[0].new_empty(tensor.shape)
    for part, value in zip(tensor.parts, values, strict=True):
        spans = zip(part.offsets, value.shape, strict=True)
        whole[tuple(slice(start, start + size) for start, size in spans)] = value
    return whole
