"""Images are read as the pipeline reads them; the oracles are mmcv's transform and OpenCV."""

import io
import re

import mmcv
import numpy as np
import pytest
from mmengine.dataset import Compose
from PIL import Image, UnidentifiedImageError

from swin_mm.datasets.reader import Reader, UnreadableError, explain_failure, read_header
from swin_mm.inference.pipeline import Pipeline
from swin_mm.inference.sources import Source

FLAGS = (
    "color",
    "grayscale",
    "unchanged",
    "color_ignore_orientation",
    "grayscale_ignore_orientation",
)


def save_turned(path, orientation: int, size=(12, 20)) -> None:
    pixels = np.random.default_rng(orientation).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if path.suffix == ".tif":
        image.save(path, tiffinfo={0x112: orientation})
        return
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_size_is_that_of_the_loaded_image(tmp_path, suffix, orientation):
    path = tmp_path / f"a{suffix}"
    save_turned(path, orientation)
    for backend in ("cv2", "pillow"):
        for flag in FLAGS:
            reader = Reader(
                dict(type="LoadImageFromFile", color_type=flag, imdecode_backend=backend)
            )
            loaded = mmcv.imread(path, flag=flag, backend=backend)
            assert reader.size(path) == loaded.shape[:2], (backend, flag)


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    """Where exiftool writes it."""
    path = tmp_path / "a.png"
    save_turned(path, 6)
    content = path.read_bytes()
    start = content.index(b"eXIf") - 4  # of the chunk: length, name, data, checksum
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    path.write_bytes(content[:start] + content[end:-12] + content[start:end] + content[-12:])
    for backend in ("cv2", "pillow"):
        reader = Reader(dict(type="LoadImageFromFile", imdecode_backend=backend))
        assert reader.size(path) == mmcv.imread(path, backend=backend).shape[:2] == (20, 12)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_the_opposite_reader_turns_where_this_one_does_not(tmp_path, flag, backend):
    save_turned(tmp_path / "a.jpg", 6)
    reader = Reader(dict(type="LoadImageFromFile", color_type=flag, imdecode_backend=backend))
    assert reader.turns == (flag in ("color", "grayscale"))
    size = (20, 12) if reader.turns else (12, 20)
    assert reader.size(tmp_path / "a.jpg") == size
    assert reader.opposite().size(tmp_path / "a.jpg") == size[::-1]


def test_no_setting_turns_what_is_read_band_by_band():
    assert Reader(dict(type="swin_mm.LoadMultiBandImage")).opposite() is None
    settings = dict(type="LoadImageFromFile", imdecode_backend="tifffile")
    assert Reader(settings).opposite() is None and not Reader(settings).turns


def modes() -> dict[str, Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 4), dtype=np.uint8)
    indexed = Image.fromarray(pixels[..., 0] % 4)
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    return {
        "rgb.png": Image.fromarray(pixels[..., :3]),
        "rgba.png": Image.fromarray(pixels),
        "grey.jpg": Image.fromarray(pixels[..., 0]),
        "alpha.png": Image.fromarray(pixels[..., 0]).convert("LA"),
        "bits.png": Image.fromarray(pixels[..., 0]).convert("1"),
        "deep.png": Image.fromarray(pixels[..., 0].astype(np.uint16) * 200),
        "palette.png": indexed,
        "cmyk.jpg": Image.frombytes("CMYK", (14, 9), pixels.tobytes()),
    }


@pytest.mark.parametrize("name", modes())
@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_pixels_are_those_of_the_pipeline_in_the_order_rgb(tmp_path, name, backend):
    path = tmp_path / name
    modes()[name].save(path)
    for flag in ("color", "unchanged"):
        step = dict(type="LoadImageFromFile", color_type=flag, imdecode_backend=backend)
        loaded = Compose([step])({"img_path": str(path)})["img"]
        loaded = loaded if loaded.ndim == 3 else loaded[..., None]
        if loaded.shape[2] >= 3:
            loaded[..., :3] = loaded[..., [2, 1, 0]]
        found = Reader(step).load(path)
        assert found.dtype == loaded.dtype
        np.testing.assert_array_equal(found, loaded)


def test_a_picture_is_what_the_model_sees(tmp_path):
    """Whatever the number type; of a TIFF in the file's order."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    for name in ("a.png", "a.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    for step in (
        dict(type="LoadImageFromFile", to_float32=True),
        dict(type="LoadImageFromFile", color_type="unchanged", imdecode_backend="pillow"),
        dict(type="swin_mm.LoadMultiBandImage"),
    ):
        np.testing.assert_array_equal(Reader(step).picture(tmp_path / "a.png"), pixels)
    step = dict(type="LoadImageFromFile", imdecode_backend="tifffile")
    np.testing.assert_array_equal(Reader(step).picture(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, no pixel here", "is not an image"),
        (b"\x89PNG", "is not an image"),
    ],
)
def test_files_without_an_image_are_called_so(tmp_path, content, reason):
    """In words, not by the checks of OpenCV's source that fail."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    message = f"^{re.escape(str(path))} {reason}$"
    with pytest.raises(UnreadableError, match=message):
        read_header(path)
    with pytest.raises(UnreadableError, match=message):
        Reader().read(path)
    pipeline = Pipeline([dict(type="LoadImageFromFile")], module=None)
    with pytest.raises(UnreadableError, match=message):
        pipeline.load(Source(str(path), path))


@pytest.mark.parametrize("step", [dict(type="LoadImageFromNDArray"), dict(type="LoadNpy", b=1)])
def test_other_loading_steps_are_not_judged(step):
    reader = Reader.of([step])
    assert not reader.can_check
    assert reader.name == step["type"]


def test_the_loading_step_is_found_in_a_data_set():
    class Wrapper:
        class dataset:
            pipeline = Compose(
                [
                    dict(type="LoadImageFromFile", color_type="grayscale"),
                    dict(type="RandomFlip", prob=0.5),
                ]
            )

    assert Reader.of(Wrapper).color_type == "grayscale"
    assert Reader.of([dict(type="RandomFlip")]).color_type == "color"


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.png", b""), ("a.jpg", b"<html>404</html>"), ("a.tif", b"II*\0"), ("a.bmp", b"BM12")],
)
def test_what_is_no_image_cannot_be_read(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableError):
        Reader().read(path)
    with pytest.raises(UnreadableError, match=name):
        read_header(path)


def test_the_reason_of_pillow_is_without_its_buffer():
    with pytest.raises(UnidentifiedImageError) as raised:
        Image.open(io.BytesIO(b"no picture"))
    assert explain_failure(raised.value) == "cannot identify image file"


def test_a_format_that_opencv_does_not_read(tmp_path):
    """Pillow alone reads TGA."""
    Image.new("RGB", (4, 5)).save(tmp_path / "a.tga")
    with pytest.raises(UnreadableError, match="a.tga cannot be loaded by LoadImageFromFile"):
        Reader().read(tmp_path / "a.tga")
    pillow = Reader(dict(type="LoadImageFromFile", imdecode_backend="pillow"))
    assert pillow.read(tmp_path / "a.tga").shape == (5, 4, 3)


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_picture_too_large_for_pillow_is_read_by_opencv(tmp_path, monkeypatch):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert Reader().read(tmp_path / "a.png").shape == (30, 40, 3)
    assert Reader().size(tmp_path / "a.png") == (30, 40)
    pillow = Reader(dict(type="LoadImageFromFile", imdecode_backend="pillow"))
    with pytest.raises(UnreadableError):
        pillow.read(tmp_path / "a.png")


def test_depth_is_told(tmp_path):
    for name, image in modes().items():
        image.save(tmp_path / name)
        assert read_header(tmp_path / name).is_deep == (name == "deep.png")
    deep = np.zeros((4, 5, 3), dtype=np.uint16)
    mmcv.imwrite(deep, str(tmp_path / "rgb16.png"))
    assert read_header(tmp_path / "rgb16.png").is_deep
