import time

import numpy as np
import pytest
from PIL import Image

from swin_mm.datasets.check.images import (
    check_present,
    check_whole,
    has_both_ends,
    spread,
)
from swin_mm.datasets.check.summary import DatasetError
from swin_mm.datasets.reader import Reader


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


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
    assert check_whole(paths, "here", 60, "image", Reader()) is None
    for index in (1, 150, 299):
        with open(paths[index], "r+b") as file:
            file.truncate(500)
    with pytest.raises(DatasetError, match="3 of 300 image files .*001.jpg, .*150.jpg, .*299.jpg;"):
        check_whole(paths, "here", 60, "image", Reader())


def test_damage_inside_is_found_in_small_sets(tmp_path, picture):
    path = tmp_path / "a.png"
    picture.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # ends intact, checksum wrong
    path.write_bytes(content)
    assert has_both_ends(str(path))
    with pytest.raises(DatasetError, match="cut short"):
        check_whole([str(path)], "here", 60, "image", Reader())


@pytest.mark.parametrize("suffix", ["bmp", "tif", "webp"])
def test_other_formats_are_decoded(tmp_path, picture, suffix):
    path = tmp_path / f"a.{suffix}"
    picture.save(path)
    assert check_whole([str(path)], "here", 60, "image", Reader()) is None
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError):
        check_whole([str(path)], "here", 60, "image", Reader())


def test_time_limit_is_kept_and_reported(tmp_path, picture, monkeypatch):
    path = str(tmp_path / "a.png")
    picture.save(path)
    clock = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert check_whole([path] * 100, "here", 9, "image", Reader()) == (
        "here: looked at 9 of 100 image files in 9 s"
    )


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
