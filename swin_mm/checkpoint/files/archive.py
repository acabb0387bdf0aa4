"""The zip archives that `torch.save` has written since PyTorch 1.6, with their checksums."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from swin_mm.checkpoint.files.values import FileContentError

ZIP_MAGIC = b"PK\x03\x04"
CHUNK = 2**20
ENCRYPTED = 0x1  # flag of a zip entry


class Archive:
    """The records of a file, or of its content; each is compared with its checksum when read."""

    def __init__(self, path: str | Path | bytes) -> None:
        size = len(path) if isinstance(path, bytes) else Path(path).stat().st_size
        try:
            self.zip = zipfile.ZipFile(io.BytesIO(path) if isinstance(path, bytes) else path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, IndexError) as error:
            raise FileContentError(
                f"it is truncated at {size} bytes or damaged; copy or download it again"
            ) from error
        try:
            self.records = self._list_records(size)
        except FileContentError:
            self.zip.close()
            raise
        self.unread = set(self.records)

    def _list_records(self, size: int) -> dict[str, zipfile.ZipInfo]:
        entries = self.zip.infolist()
        # Programs of TorchScript have both; the weights of one are not those of its pickle.
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise FileContentError(
                "it is a program of TorchScript; save the state dict of torch.jit.load(FILE)"
            )
        folders = {entry.filename.partition("/")[0] for entry in entries}
        records = {entry.filename.partition("/")[2]: entry for entry in entries}
        if len(folders) != 1 or "data.pkl" not in records or len(records) != len(entries):
            raise FileContentError("it is a zip archive, but none of torch.save; unpack it")
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
                raise FileContentError(f"its part {entry.filename} is compressed or encrypted")
        if sum(entry.file_size for entry in entries) > size:
            raise FileContentError("its parts overlap; copy or download it again")
        return records

    def read(self, name: str) -> bytes:
        """The content of a small record."""
        buffer = bytearray(self.size(name))
        self._read_into(name, memoryview(buffer))
        return bytes(buffer)

    def read_storage(self, name: str) -> torch.UntypedStorage:
        """The content of a record as memory of tensors, as `read`."""
        values = torch.empty(self.size(name), dtype=torch.uint8)
        self._read_into(name, memoryview(values.numpy().data))
        return values.untyped_storage()

    def size(self, name: str) -> int:
        """The bytes in a record."""
        if name not in self.records:
            raise FileContentError(f"its part {name} is missing; copy or download it again")
        return self.records[name].file_size

    def _read_into(self, name: str, view: memoryview) -> None:
        done = 0
        for piece in self._pieces(name):
            view[done : done + len(piece)] = piece
            done += len(piece)

    def _pieces(self, name: str) -> Iterator[bytes]:
        """Gives a record piece by piece; at its end the checksum is compared."""
        done = 0
        try:
            with self.zip.open(self.records[name]) as record:
                while piece := record.read(CHUNK):
                    done += len(piece)
                    yield piece
            if done != self.size(name):
                raise EOFError
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as e:
            raise FileContentError(f"its part {name} is damaged; copy or download it again") from e
        self.unread.discard(name)

    def check_rest(self) -> None:
        """Compares the checksums of records that were not read."""
        for name in sorted(self.unread):
            for _ in self._pieces(name):
                pass

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self.zip.close()
