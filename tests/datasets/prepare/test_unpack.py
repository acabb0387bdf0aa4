"""Archives: what is damaged is refused, and nothing is written outside of the folder."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from swin_mm.datasets.prepare import Archive, PrepareError
from swin_mm.datasets.prepare.prepare import unpack as unpack_archive

FILES = {"images/a.jpg": b"a" * 5000, "images/deep/b.jpg": b"b", "list.txt": b"a b"}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


MAKERS = {
    "a.zip": make_zip,
    "a.tar": make_tar,
    "a.tar.gz": lambda path, files: make_tar(path, files, "w:gz"),
}


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def unpack(path: Path, folder: Path, inner: tuple[str, ...] = ()) -> None:
    unpack_archive(Archive(path.name, {}, inner=inner), path, folder)


def refuse(path: Path, folder: Path, *words: str, **arguments) -> None:
    """Unpacking must fail, and be begun anew by the next run."""
    with pytest.raises(PrepareError) as error:
        unpack(path, folder, **arguments)
    message = str(error.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message, message
    assert [mark.name for mark in folder.glob(".*")] == [f".unpacking_{path.name}"]


@pytest.mark.parametrize("name", MAKERS)
def test_unpacks(tmp_path, name):
    unpack(MAKERS[name](tmp_path / name, FILES), tmp_path / "data")
    assert content(tmp_path / "data") == FILES


def test_adds_to_what_is_there(tmp_path):
    folder = tmp_path / "data"
    (folder / "images" / "deep").mkdir(parents=True)
    (folder / "images" / "mine.jpg").write_bytes(b"mine")
    (folder / "images" / "a.jpg").write_bytes(b"cut sh")
    unpack(make_zip(tmp_path / "a.zip", FILES), folder)
    assert content(folder) == {**FILES, "images/mine.jpg": b"mine"}


def test_archive_within_an_archive(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", FILES).read_bytes()
    outer = make_zip(tmp_path / "a.zip", {"maps/inner.zip": inner, "maps.json": b"{}"})
    unpack(outer, tmp_path / "data", inner=("maps/inner.zip",))
    expected = {f"maps/{name}": data for name, data in FILES.items()} | {"maps.json": b"{}"}
    assert content(tmp_path / "data") == expected
    refuse(outer, tmp_path / "data", "other.zip", inner=("other.zip",))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("member", ["../out.txt", "images/../../out.txt"])
def test_never_writes_outside(tmp_path, name, member):
    archive = MAKERS[name](tmp_path / name, FILES | {member: b"x"})
    if name.endswith(".zip"):  # what leads out of a name is left out
        unpack(archive, tmp_path / "data")
    else:
        refuse(archive, tmp_path / "data", "would be extracted to", "outside the destination")
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_out_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("images")
        member.type, member.linkname = kind, "/tmp"
        archive.addfile(member)
        archive.addfile(tarfile.TarInfo("images/out.txt"))
    refuse(path, tmp_path / "data", "images")


def test_a_link_in_a_zip_is_a_file(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("images")
        link.external_attr = 0o120777 << 16  # as Unix's zip keeps a link
        archive.writestr(link, "/tmp")
    unpack(path, tmp_path / "data")
    assert not (tmp_path / "data" / "images").is_symlink()


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_cut_short_is_refused(tmp_path, name):
    noise = bytes(range(256)) * 400
    archive = MAKERS[name](tmp_path / name, FILES | {"images/noise.jpg": noise})
    archive.write_bytes(archive.read_bytes()[: int(0.6 * archive.stat().st_size)])
    refuse(archive, tmp_path / "data", "delete it and run this again")


def test_wrong_checksum_of_a_member(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:  # not compressed
        archive.writestr("images/a.jpg", b"a" * 5000)
    path.write_bytes(path.read_bytes().replace(b"aaaa", b"aaba", 1))
    refuse(path, tmp_path / "data", "(Bad CRC-32")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    path.write_text("<html>Please log in</html>")
    refuse(path, tmp_path / "data", "is damaged")
