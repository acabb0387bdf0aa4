"""Reading of all images: what cannot be read, and statistics of the rest."""

import numpy as np
import pytest
from PIL import Image

from swin_mm.datasets.check import pixels as module
from swin_mm.datasets.check.pixels import read_all
from swin_mm.datasets.reader import Reader, UnreadableError


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
def test_statistics_are_those_of_all_pixels(paths, threads, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)
    found = read_all(paths, "images", Reader(), threads, measure=True)
    everything = np.concatenate([np.array(Image.open(p)).reshape(-1, 3) for p in paths])
    assert (found.read, found.unreadable, found.statistics.images) == (7, {}, 7)
    np.testing.assert_allclose(found.statistics.mean, everything.mean(0))
    np.testing.assert_allclose(found.statistics.std, everything.std(0))


def test_of_large_images_every_fourth_pixel_is_counted(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (300, 301, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    found = read_all([str(tmp_path / "a.png")], "images", Reader(), measure=True)
    np.testing.assert_allclose(found.statistics.mean, image[::2, ::2].mean((0, 1)))


def test_all_unreadable_files_are_found(paths):
    for index in (0, 3, 6):
        with open(paths[index], "r+b") as file:
            file.truncate(60)
    found = read_all(paths, "images", Reader(), 2, measure=True)
    assert list(found.unreadable) == [paths[0], paths[3], paths[6]]
    assert (found.read, found.statistics.images) == (7, 4)
    assert set(read_all(paths, "images", Reader()).unreadable) == set(found.unreadable)
    found = read_all([paths[3]], "images", Reader(), measure=True)
    assert (found.statistics, found.why_none) == (None, "")


def test_grey_images_count_as_grey_colours(tmp_path):
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "a.png")
    found = read_all([str(tmp_path / "a.png")], "images", Reader(), measure=True)
    assert found.statistics.mean == (7, 7, 7)


class StubReader:
    """Gives the arrays, or raises the errors, that it is made with."""

    def __init__(self, *results):
        self.results = iter(results)

    def read(self, path):
        result = next(self.results)
        if isinstance(result, Exception):
            raise result
        return result


def test_images_of_different_bands_have_no_mean(paths):
    reader = StubReader(np.zeros((2, 2, 3)), np.zeros((2, 2, 4)), UnreadableError("broken"))
    found = read_all(paths[:3], "images", reader, measure=True)
    assert "equally many bands: one has 4, others 3" in found.why_none
    assert found.statistics is None


def test_image_that_the_pipeline_cannot_take(paths):
    error = UnreadableError("it has 3 bands, but 4 are wanted")
    reader = StubReader(*[np.zeros((2, 2, 3))] * 2, error, *[np.zeros((2, 2, 3))] * 4)
    found = read_all(paths, "images", reader, measure=True)
    assert (found.read, found.unreadable, found.why_none) == (7, {paths[2]: error}, "")
    assert found.statistics.images == 6


def test_limit_spreads_over_the_list(paths):
    assert read_all(paths, "images", Reader(), limit=3).read == 3
    assert read_all([], "images", Reader(), measure=True).read == 0
