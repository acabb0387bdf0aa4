"""Reading bands: what tifffile, OpenCV and NumPy wrote comes back, in one order of bands."""

import builtins

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from swin_mm.datasets.bands import (
    BandError,
    MissingReaderError,
    is_tiff,
    read_bands,
    read_shape,
    to_picture,
)


def values(bands, dtype=np.uint16, size=(7, 9)):
    high = 255 if dtype == np.uint8 else 60_000
    return np.random.default_rng(bands).integers(0, high, (*size, bands)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_interleaved_tiff(tmp_path, bands, dtype, compression):
    image, path = values(bands, dtype), tmp_path / "image.tif"
    photometric = "rgb" if bands == 3 else "minisblack"
    order = {} if bands == 1 else dict(planarconfig="contig")
    written = image[..., 0] if bands == 1 else image
    tifffile.imwrite(path, written, photometric=photometric, compression=compression, **order)
    found = read_bands(path)
    assert is_tiff(path) and found.dtype == dtype
    np.testing.assert_array_equal(found, image)
    assert read_shape(path) == image.shape


@pytest.mark.parametrize("bands", [2, 4, 12])
@pytest.mark.parametrize("kind", ["planes", "pages", "bigtiff"])
def test_tiff_in_planes_or_pages(tmp_path, bands, kind):
    image, path = values(bands), tmp_path / "image.tiff"
    options = dict(planes=dict(planarconfig="separate"), pages={}, bigtiff=dict(bigtiff=True))
    stacked = np.moveaxis(image, -1, 0)
    tifffile.imwrite(path, stacked, photometric="minisblack", metadata=None, **options[kind])
    np.testing.assert_array_equal(read_bands(path), image)
    assert read_shape(path) == image.shape


def test_tiff_of_another_library(tmp_path):
    image = values(3, np.uint8)
    Image.fromarray(image).save(tmp_path / "a.tif")
    cv2.imwrite(str(tmp_path / "b.tif"), image[..., ::-1].astype(np.uint16) * 200)
    np.testing.assert_array_equal(read_bands(tmp_path / "a.tif"), image)
    np.testing.assert_array_equal(read_bands(tmp_path / "b.tif"), image.astype(np.uint16) * 200)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_png_is_red_green_blue(tmp_path, bands, dtype):
    image = values(bands, dtype)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[bands]
    cv2.imwrite(str(tmp_path / "image.png"), image[..., order])
    np.testing.assert_array_equal(read_bands(tmp_path / "image.png"), image)
    assert read_shape(tmp_path / "image.png") == image.shape
    if bands == 3 and dtype == np.uint8:
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "image.png")), image)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "start.tif").write_bytes(b"II*\0")
    order = dict(photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "cut.tif", values(4), **order)
    content = (tmp_path / "cut.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(content[: len(content) - 10])
    tifffile.imwrite(tmp_path / "volume.tif", np.zeros((3, 4, 5, 6)), photometric="minisblack")
    for name, message in (
        ("text.png", "not an image"),
        ("start.tif", "not a TIFF that can be read"),
        ("cut.tif", "damaged, or cut short"),
        ("volume.tif", "has the axes"),
    ):
        with pytest.raises(BandError, match=message):
            read_bands(tmp_path / name)


def test_without_tifffile_the_command_is_told(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", values(4), photometric="minisblack")
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == "tifffile":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(MissingReaderError, match="pip install 'swin-mm\\[tiff\\]'"):
        read_bands(tmp_path / "a.tif")


def test_picture_of_bytes_is_as_they_are():
    image = values(4, np.uint8)
    np.testing.assert_array_equal(to_picture(image), image[..., :3])
    np.testing.assert_array_equal(to_picture(image, (3, 1, 0)), image[..., [3, 1, 0]])
    grey = to_picture(values(2, np.uint8))
    assert grey.shape == (7, 9, 3) and (grey == grey[..., :1]).all()


def test_picture_of_sixteen_bits_fills_the_range_of_bytes():
    image = np.linspace(1000, 3000, 600).reshape(20, 30, 1).astype(np.uint16)
    image[0, 0] = 65535  # one bright pixel does not make the rest black
    picture = to_picture(image)
    assert picture.dtype == np.uint8
    assert (picture.min(), picture.max()) == (0, 255)
    assert abs(float(np.median(picture)) - 127) < 3
    assert to_picture(np.full((2, 2, 3), 7.0)).max() == 0  # no spread, no division by zero


@pytest.mark.parametrize("bands", [(0, 1), (0, 1, 4), (-1,)])
def test_bands_that_are_not_there_are_refused(bands):
    with pytest.raises(BandError, match="one or three bands of 0 to 3"):
        to_picture(values(4), bands)
