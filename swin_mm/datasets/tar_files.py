"""Files inside tar archives, for every data set and transform that reads by mmengine's backends.

`tar://data/coco/train2017.tar/000000000009.jpg` is a file of `data/coco/train2017.tar`. A pattern,
such as `train-*.tar`, stands for all archives that match. Paths without an archive are those of
files. With `backend_args=dict(backend="swin_mm_tar")` archives may also be at an address that
fsspec knows, such as `s3://bucket/train2017.tar/000000000009.jpg`.
"""

import glob
import json
import os
import re
import tarfile
import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

BACKEND, PREFIX, INDEX_SUFFIX = "swin_mm_tar", "tar", ".index"
ARCHIVE = re.compile(r"(.+?\.tar)(?:/+(.*))?$")
Members = dict[str, tuple[str, int, int]]  # archive, first byte and number of bytes, by name


@register_backend(BACKEND, prefixes=PREFIX)
class TarBackend(LocalBackend):
    """mmengine's backend for local files that also reads members of uncompressed tar archives.

    The places of members are kept beside the archive, in `NAME.tar.index`, where that can be
    written; else each process looks through the archive once. Nothing is unpacked.
    """

    def get(self, filepath: str | Path) -> bytes:
        """Reads a file or a member.

        Raises:
            FileNotFoundError: There is none.
            ValueError: The archive is compressed, damaged, or has changed.
        """
        path, archive, name = _split(filepath)
        if archive is None:
            return _read(path) if "://" in path else super().get(path)
        members = find_members(archive)
        if name not in members:
            raise FileNotFoundError(f"{archive} has no file {name}")
        return _read(*members[name])

    def get_text(self, filepath: str | Path, encoding: str = "utf-8") -> str:
        return self.get(filepath).decode(encoding)

    def exists(self, filepath: str | Path) -> bool:
        return self.isfile(filepath) or self.isdir(filepath)

    def isfile(self, filepath: str | Path) -> bool:
        path, archive, name = _split(filepath)
        return super().isfile(path) if archive is None else name in find_members(archive)

    def isdir(self, filepath: str | Path) -> bool:
        path, archive, name = _split(filepath)
        if archive is None:
            return super().isdir(path)
        return any(
            member.startswith(f"{name}/" if name else "") for member in find_members(archive)
        )

    @contextmanager
    def get_local_path(self, filepath: str | Path) -> Generator[str | Path, None, None]:
        """Gives the path of a file; a member is there only within the context."""
        path, archive, _ = _split(filepath)
        if archive is None and "://" not in path:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(path).name)
            copy.write_bytes(self.get(filepath))
            yield str(copy)

    def list_dir_or_file(
        self,
        dir_path: str | Path,
        list_dir: bool = True,
        list_file: bool = True,
        suffix: str | tuple[str, ...] | None = None,
        recursive: bool = False,
    ) -> Iterator[str]:
        """Lists a folder as mmengine's backends do, with paths relative to it."""
        path, archive, folder = _split(dir_path)
        if archive is None:
            yield from super().list_dir_or_file(path, list_dir, list_file, suffix, recursive)
            return
        start = f"{folder}/" if folder else ""
        inside = [n.removeprefix(start) for n in find_members(archive) if n.startswith(start)]
        if list_dir:
            parents = {str(parent) for name in inside for parent in Path(name).parents} - {"."}
            yield from sorted(name for name in parents if recursive or "/" not in name)
        for name in inside if list_file else ():
            is_hidden = name.rpartition("/")[2].startswith(".")
            if (recursive or "/" not in name) and not is_hidden and name.endswith(suffix or ""):
                yield name


def _split(path: str | Path) -> tuple[str, str | None, str]:
    """A path without `tar://`, the archive in it, None without one, and the name in that."""
    text = str(path).removeprefix(f"{PREFIX}://")
    match = ARCHIVE.match(text)
    if match is None or _is_folder(match[1]):
        return text, None, ""
    return text, match[1], _clean(match[2]) if match[2] else ""


def _clean(name: str) -> str:
    """The name of a member without `./` or `/` before it; names may begin with a dot."""
    name = os.path.normpath(name).lstrip("/")
    return "" if name == "." else name


@cache  # a look at an archive for each image would be as slow as opening a file
def _is_folder(path: str) -> bool:
    return os.path.isdir(path)


@cache
def find_members(archive: str) -> Members:
    """Finds the files in an archive, or in all that match a pattern.

    Raises:
        FileNotFoundError: There is no archive.
        ValueError: It is compressed or damaged, or two have files of one name.
    """
    if "://" in archive:
        return _index(archive)
    archives = [archive] if os.path.exists(archive) else sorted(glob.glob(archive))
    if not archives:
        raise FileNotFoundError(f"there is no archive {archive}")
    members: Members = {}
    for path in archives:
        found = _index(path)
        if both := members.keys() & found.keys():
            raise ValueError(f"{min(both)} is in {members[min(both)][0]} and in {path}")
        members |= found
    return members


def _index(archive: str) -> Members:
    is_remote, path = "://" in archive, Path(archive + INDEX_SUFFIX)
    state = [] if is_remote else [os.stat(archive).st_size, os.stat(archive).st_mtime_ns]
    if not is_remote and path.is_file():
        content = json.loads(path.read_text())
        if content["archive"] == state:
            return {name: (archive, *place) for name, place in content["members"].items()}
    places = _scan(archive)
    if not is_remote and os.access(path.parent, os.W_OK):
        # Processes of several machines may have one number.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        partial.write_text(json.dumps({"archive": state, "members": places}))
        os.replace(partial, path)
    return {name: (archive, *place) for name, place in places.items()}


def _scan(archive: str) -> dict[str, tuple[int, int]]:
    import fsspec

    places: dict[str, tuple[int, int]] = {}
    try:
        with fsspec.open(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = _clean(member.name)
                if member.islnk():
                    places[name] = places[_clean(member.linkname)]
                elif member.isreg() and not member.issparse():
                    places[name] = (member.offset_data, member.size)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("its end is missing")
    except tarfile.TarError as error:
        raise ValueError(
            f"{archive} is no whole, uncompressed tar archive ({error}); write it with tar -cf"
        ) from None
    return places


def _read(path: str, start: int = 0, size: int | None = None) -> bytes:
    if "://" in path:
        import fsspec

        system, place = fsspec.core.url_to_fs(path)
        content = system.cat_file(place, start, None if size is None else start + size)
    else:
        # Workers share the descriptor, so nothing may depend on where it stands.
        content = os.pread(_open(path), size or 0, start)
    if size is not None and len(content) != size:
        raise ValueError(f"{path} has changed or is truncated: remove {path}{INDEX_SUFFIX}")
    return content


@cache
def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY)
