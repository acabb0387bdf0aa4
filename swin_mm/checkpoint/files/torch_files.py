"""The content of files of `torch.save`, old and new, and of plain pickles."""

import io
from collections.abc import Callable
from typing import Any

import torch

from swin_mm.checkpoint.files.archive import Archive
from swin_mm.checkpoint.files.tensors import STORAGE_DTYPES, Storage
from swin_mm.checkpoint.files.unpickle import Unpickler, check_structure
from swin_mm.checkpoint.files.values import FileContentError, ForbiddenError, Global

# How files before PyTorch 1.6 begin: these two, each a pickle.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# Functions that are known, and not for weights.
KNOWN = {
    "_rebuild_qtensor": "it holds quantised tensors; save the weights in floating point",
    "_rebuild_sparse_tensor": "it holds sparse tensors; save them dense",
    "_rebuild_nested_tensor": "it holds nested tensors; save plain ones",
    "_rebuild_meta_tensor_no_storage": "it holds tensors of the meta device, which have no values",
    "_rebuild_wrapper_subclass": "it holds tensors of a class of its own; save plain ones",
    "DTensor": "it holds distributed tensors; gather them (full_tensor()) before saving",
    "ScriptModule": "it is a program of TorchScript; save its state dict",
}
Place = Callable[[torch.UntypedStorage, str], torch.UntypedStorage]


def read_archive(archive: Archive, map_location: Any) -> Any:
    """Reads the content of an archive; `map_location` is as in `torch.load`."""
    place = _placement(map_location)
    byte_order = archive.read("byteorder") if "byteorder" in archive.records else b"little"
    if byte_order != b"little":
        raise FileContentError("it was written by a machine with another byte order; convert it")
    loaded: dict[str, torch.UntypedStorage] = {}

    def find_storage(pid: tuple) -> Storage:
        dtype, key, location, numel = _read_id(pid, 5)
        if key not in loaded:
            loaded[key] = place(archive.read_storage(f"data/{key}"), location)
        if len(loaded[key]) < numel * dtype.itemsize:
            raise FileContentError(f"its part data/{key} is too short for {numel} values")
        return Storage(loaded[key], dtype)

    content = _load(Unpickler(io.BytesIO(archive.read("data.pkl")), find_storage))
    check_structure(content)
    archive.check_rest()
    return content


def is_legacy(file: io.BytesIO) -> bool:
    """Whether it is a file of `torch.save` before PyTorch 1.6, not a plain pickle."""
    head = file.getbuffer()[:32].tobytes()
    return LEGACY_MAGIC.to_bytes(10, "little") in head


def read_legacy(file: io.BytesIO, size: int, map_location: Any) -> Any:
    """Reads a file of `torch.save` before PyTorch 1.6: pickles, and memory behind them.

    The tensors can't have more memory than `size`, the bytes of the file.
    """
    place = _placement(map_location)
    magic, version = _load(Unpickler(file)), _load(Unpickler(file))
    if magic != LEGACY_MAGIC or version != LEGACY_VERSION:
        raise FileContentError("its first words are not those of torch.save")
    system = _load(Unpickler(file))
    if not (isinstance(system, dict) and system.get("little_endian", True)):
        raise FileContentError("it was written by a machine with another byte order; convert it")
    loaded: dict[str, tuple[Storage, torch.UntypedStorage, str]] = {}

    def find_storage(pid: tuple) -> Storage:
        dtype, key, location, numel, view = _read_id(pid, 6)
        if view is not None:
            raise FileContentError("it holds views of memory, as PyTorch before 0.4 wrote them")
        if key not in loaded:
            used = sum(len(memory) for _, memory, _ in loaded.values())
            if used + numel * dtype.itemsize > size:
                raise FileContentError(f"it has {size} bytes, fewer than its tensors")
            memory = torch.UntypedStorage(numel * dtype.itemsize)
            loaded[key] = Storage(place(memory, location), dtype), memory, location
        return Storage(loaded[key][0].bytes, dtype)

    content = _load(Unpickler(file, find_storage))
    keys = _load(Unpickler(file))
    is_list = isinstance(keys, list) and all(type(key) in (str, int) for key in keys)
    if not is_list or set(keys) != set(loaded):
        raise FileContentError("the list of its parts is not that of its tensors")
    for key in keys:
        storage, memory, location = loaded[key]
        count = int.from_bytes(file.read(8), "little")
        data = file.read(len(memory))
        if count * storage.dtype.itemsize != len(memory) or len(data) != len(memory):
            raise FileContentError("it is truncated or damaged; copy or download it again")
        if data:
            source = torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()
            memory.copy_(source)
            if storage.bytes is not memory:
                storage.bytes.copy_(place(source, location))
    if type(content) is not Storage:
        check_structure(content)
    return content


def read_pickle(file: io.BytesIO) -> Any:
    """Reads a plain pickle: of Detectron2's weights, of predictions."""
    content = _load(Unpickler(file))
    check_structure(content)
    return content


def _load(unpickler: Unpickler) -> Any:
    try:
        return unpickler.load()
    except ForbiddenError as error:
        name = str(error).rpartition(".")[2]
        if name in KNOWN:
            raise FileContentError(KNOWN[name]) from None
        raise
    except FileContentError:
        raise
    except MemoryError:
        raise FileContentError("there is not enough memory for it") from None
    # Damage shows in any way, also with IndexError, KeyError or OverflowError.
    except Exception as error:
        raise FileContentError(
            "it cannot be read; is it a checkpoint, and whole? Copy or download it again"
        ) from error


def _read_id(pid: tuple, length: int) -> tuple:
    """Checks what a pickle says of memory: type, key, location, number of values, and the rest."""
    tag = pid[0].decode("latin1") if pid and isinstance(pid[0], bytes) else pid[:1]
    is_known = tag in ("storage", ("storage",)) and len(pid) == length
    if not is_known or not isinstance(pid[1], Global) or pid[1].name not in STORAGE_DTYPES:
        raise FileContentError("it refers to memory in an unknown way")
    key, location, numel = pid[2:5]
    location = location.decode("latin1") if isinstance(location, bytes) else location
    if type(key) not in (str, int) or type(location) is not str or type(numel) is not int:
        raise FileContentError("it refers to memory in an unknown way")
    if not 0 <= numel < 2**48:
        raise FileContentError(f"it has a tensor of {numel} values")
    return STORAGE_DTYPES[pid[1].name], key, location, numel, *pid[5:]


def _placement(map_location: Any) -> Place:
    """What moves memory to where `map_location` says, as in `torch.load`."""
    return torch.serialization._get_restore_location(map_location)
