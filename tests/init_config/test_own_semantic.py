"""Reading folders for segmentation: pairs of files, what values mean, colours."""

import pytest
from own_data import write_maps

from swin_mm.datasets.check import DatasetError
from swin_mm.init_config import InitConfigError, Options, init_segmentation
from swin_mm.init_config.semantic import (
    decide_labels,
    read_classes,
    read_part,
)


@pytest.mark.parametrize("ending", [".png", "_mask.png"])
def test_images_and_label_maps_are_paired(tmp_path, ending):
    write_maps(tmp_path, images=3, suffix=".jpg", ending=ending)
    part = read_part(str(tmp_path / "img"), str(tmp_path / "lab"))
    assert (part.image_suffix, part.mask_suffix) == (".jpg", ending)
    assert part.names == ["000", "001", "002"] and part.is_whole
    assert part.sizes() == [(64, 96)] * 3
    assert part.values == {name: {0, 1, 2} for name in part.names}


def test_images_without_a_map_are_left_out(tmp_path):
    write_maps(tmp_path, images=3)
    (tmp_path / "lab" / "001.png").unlink()
    part = read_part(str(tmp_path / "img"), str(tmp_path / "lab"))
    assert part.names == ["000", "002"] and not part.is_whole


def test_folders_that_do_not_go_together_are_refused(tmp_path):
    write_maps(tmp_path, images=2)
    with pytest.raises(InitConfigError, match="--images: there is no folder"):
        read_part(str(tmp_path / "no"), str(tmp_path / "lab"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InitConfigError, match="there is no file in .*empty"):
        read_part(str(tmp_path / "img"), str(tmp_path / "empty"))
    (tmp_path / "img" / "x.bmp").touch()
    with pytest.raises(InitConfigError, match=r"several kinds \(.bmp, .png\)"):
        read_part(str(tmp_path / "img"), str(tmp_path / "lab"))
    (tmp_path / "empty" / "z.png").touch()
    (tmp_path / "img" / "x.bmp").unlink()
    with pytest.raises(InitConfigError, match=r"000.png is expected, there is z.png"):
        read_part(str(tmp_path / "img"), str(tmp_path / "empty"))


def test_label_maps_as_jpeg_are_refused_with_the_reason(tmp_path):
    write_maps(tmp_path, images=2, ending=".jpg")
    with pytest.raises(InitConfigError, match="000.jpg is a JPEG, which changes the values"):
        init_segmentation([str(tmp_path / "lab")], [str(tmp_path / "img")], None, Options())
    for path in (tmp_path / "lab").iterdir():
        path.rename(path.with_suffix(".png"))  # by its name alone
    with pytest.raises(DatasetError, match="is a JPEG, which changes the values"):
        _ = read_part(str(tmp_path / "img"), str(tmp_path / "lab")).values


@pytest.mark.parametrize(
    ("values", "given", "classes", "reduced"),
    [
        ({0, 1, 2}, ("a", "b", "c"), ("a", "b", "c"), False),
        ({0, 2, 255}, ("a", "b", "c"), ("a", "b", "c"), False),
        ({1, 2}, ("a", "b", "c"), ("a", "b", "c"), False),
        ({0, 1, 3}, ("a", "b", "c"), ("a", "b", "c"), True),
        ({0, 1, 2}, (), ("class_0", "class_1", "class_2"), False),
        ({1, 2, 255}, (), ("class_0", "class_1"), True),
        ({0, 1}, ("road",), ("background", "road"), False),
        ({0, 1, 255}, ("road",), ("background", "road"), False),
    ],
    ids=str,
)
def test_what_values_mean(values, given, classes, reduced):
    labels = decide_labels(values, given)
    assert (labels.classes, labels.reduce_zero_label) == (classes, reduced)
    assert ("0 is unlabelled" in labels.explanation) == reduced
    assert ("255 is ignored" in labels.explanation) == (255 in values)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        ({255}, (), "every pixel has the value 255"),
        ({0, 255}, ("a", "b"), "0 and 255 alone, black and white"),
        ({0, 1, 7, 200}, ("a", "b"), r"hold the values 7, 200, but 2 classes are 0 to 1"),
        ({0, 90}, (), "up to 90: name the classes"),
        ({0, 255}, ("road",), "write 1 for 255"),
        ({0, 1, 256}, ("a", "b"), "up to 256, but mmseg loads them as uint8"),
    ],
    ids=["empty", "black and white", "out of range", "unnamed", "one class", "16 bits"],
)
def test_values_without_sense_are_refused(values, given, message):
    with pytest.raises(InitConfigError, match=message):
        decide_labels(values, given)


def test_names_come_from_the_line_or_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("Straße\n\nopen, sky \n", encoding="utf-8")
    assert read_classes([str(file)]) == ("Straße", "open, sky")
    assert read_classes(["a", "b"]) == ("a", "b")
    assert read_classes(None) == ()
    with pytest.raises(InitConfigError, match="different names, got 'a'"):
        read_classes(["a", "a"])
