"""Files of images: absent, damaged or cut short."""

import time

import numpy as np
import pytest
from PIL import Image

from swin_mm.datasets.check import images as module
from swin_mm.datasets.check.images import check_present, has_both_ends, read_images, spread
from swin_mm.datasets.check.inspection import Inspection
from swin_mm.datasets.check.summary import DatasetError
from swin_mm.datasets.reader import Reader, UnreadableError


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def look_into(paths: list[str], seconds: float = 60) -> list[str]:
    return Inspection(seconds).look_into(paths, "here", Reader())


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 100])
def test_spread_is_a_permutation(count):
    assert sorted(spread(count)) == list(range(count))


def test_spread_reaches_over_the_range_early():
    assert spread(8).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    first = np.sort(spread(118287)[:64])
    assert np.diff(first).max() < 2 * 118287 / 64


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_ends_of_whole_and_cut_files(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    whole = path.read_bytes()
    assert has_both_ends(str(path))
    path.write_bytes(whole + b"\0" * 100)  # some cameras pad their files
    assert has_both_ends(str(path))
    path.write_bytes(whole[:-20])
    assert not has_both_ends(str(path))


def test_every_cut_file_is_found_among_many(tmp_path, picture):
    paths = [str(tmp_path / f"{index:03d}.jpg") for index in range(300)]
    for path in paths:
        picture.save(path)
    assert look_into(paths) == []
    for index in (1, 150, 299):
        with open(paths[index], "r+b") as file:
            file.truncate(500)
    with pytest.raises(DatasetError, match="3 of 300 image files .*001.jpg, .*150.jpg, .*299.jpg;"):
        look_into(paths)


def test_damage_inside_is_found_in_small_sets(tmp_path, picture):
    path = tmp_path / "a.png"
    picture.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # ends intact, checksum wrong
    path.write_bytes(content)
    assert has_both_ends(str(path))
    with pytest.raises(DatasetError, match="cut short"):
        look_into([str(path)])


@pytest.mark.parametrize("suffix", ["bmp", "tif", "webp"])
def test_other_formats_are_decoded(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    assert look_into([str(path)]) == []
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError):
        look_into([str(path)])


def test_time_limit_is_kept_and_reported(tmp_path, picture, monkeypatch):
    path = str(tmp_path / "a.png")
    picture.save(path)
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert look_into([path] * 100, 9) == ["here: checked 9 of 100 image files in 9 s"]


def test_missing_files_of_several_folders(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    paths = [f"{tmp_path}/{name}" for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", "c.png")]
    check_present(paths[:1], "here")
    with pytest.raises(DatasetError) as error:
        check_present(paths, "here", "label map")
    assert str(error.value) == (
        f"here: 4 of 5 label map files are missing: {paths[1]}, {paths[2]}, {paths[3]} and 1 more; "
        "put them there, or correct data_root and data_prefix"
    )


@pytest.fixture
def paths(tmp_path) -> list[str]:
    random = np.random.default_rng(0)
    paths = []
    for index in range(7):
        image = random.integers(0, 256, (10 + index, 20, 3), dtype=np.uint8)
        paths.append(str(tmp_path / f"{index}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


@pytest.mark.parametrize("threads", [1, 3])
def test_all_unreadable_files_are_found(paths, threads, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    for index in (0, 3, 6):
        with open(paths[index], "r+b") as file:
            file.truncate(60)
    read, unreadable = read_images(paths, "images", Reader(), threads)
    assert read == 7 and list(unreadable) == [paths[0], paths[3], paths[6]]


class StubReader:
    """Raises the errors that it is made with, None for an image that it reads."""

    def __init__(self, *results):
        self.results = iter(results)

    def read(self, path):
        if error := next(self.results):
            raise error


def test_image_that_the_pipeline_cannot_take(paths):
    error = UnreadableError("it has 3 bands, but 4 are wanted")
    found = read_images(paths, "images", StubReader(None, None, error, *[None] * 4))
    assert found == (7, {paths[2]: error})


def test_no_files():
    assert read_images([], "images", Reader()) == (0, {})
