"""One made-up fault at a time, and several at once: the thorough check goes on after each."""

import numpy as np
import pytest
from broken_data import change_coco, paint, write_coco, write_images, write_semantic
from mmengine.config import Config
from PIL import Image

from swin_mm.datasets.check import DatasetError, Inspection, inspect_config


@pytest.fixture
def coco(tmp_path) -> Config:
    return Config.fromfile(write_coco(tmp_path))


@pytest.fixture
def semantic(tmp_path) -> Config:
    return Config.fromfile(write_semantic(tmp_path))


def inspect(cfg: Config) -> Inspection:
    return inspect_config(cfg, ("train",))


def one_fault(cfg: Config, *words: str) -> Inspection:
    """The check must find one fault, told with some words, and no other."""
    found = inspect(cfg)
    assert len(found.faults) == 1, found.faults
    for word in words:
        assert word in found.faults[0], found.faults[0]
    assert "\n" not in found.faults[0]
    return found


def one_warning(cfg: Config, *words: str) -> None:
    found = inspect(cfg)
    assert (found.faults, len(found.summary.warnings())) == ([], 1), found
    for word in words:
        assert word in found.summary.warnings()[0], found.summary.warnings()[0]


def test_sound_detection_data(coco):
    found = inspect(coco)
    assert (found.faults, found.summary.warnings(), found.unreadable) == ([], [], set())
    split = found.summary.splits["train"]
    assert (split.images, split.instances, split.per_class) == (3, 4, {"cat": 3, "dog": 1})


def test_sound_segmentation_data(semantic):
    found = inspect(semantic)
    assert (found.faults, found.summary.warnings(), found.unreadable) == ([], [], set())
    shares = found.summary.splits["train"].per_class
    assert shares == pytest.approx({"grass": 0.4, "road": 0.2, "sky": 0.4})


def set_annotation(**values):
    return lambda coco: coco["annotations"][1].update(values)


COCO_FAULTS = {
    "classes": (
        lambda coco: coco["categories"][0].update(name="Cat"),
        ["classes cat, dog are not those of", "it lacks 'cat' (is it 'Cat'?)"],
    ),
    "order of classes": (
        lambda coco: coco["categories"].reverse(),
        ["numbers classes in the file's order: write them so, ('dog', 'cat')"],
    ),
    "unknown category": (
        set_annotation(category_id=99),
        ["1 annotations name categories that the file does not list", "category_id=99"],
    ),
    "unknown image": (
        set_annotation(image_id=99),
        ["1 annotations name images that the file does not list", "image_id=99"],
    ),
    "id used twice": (set_annotation(id=1), ["1 ids of annotations are used twice: 1"]),
    "box of text": (set_annotation(bbox="5 5 20 20"), ["annotation 2 has bbox=5 5 20 20"]),
    "area": (set_annotation(area=None), ["annotation 2 has area=None"]),
    "size of an image": (
        lambda coco: coco["images"][1].update(height=0),
        ["image 1 has width and height (50, 0)"],
    ),
    "no mask": (set_annotation(segmentation=[]), ["annotation 2 has no segmentation"]),
    "broken mask": (
        set_annotation(segmentation={"size": [40, 50], "counts": [7]}),
        ["run lengths that add up to 7, not the 2000 pixels"],
    ),
    "nothing": (
        lambda coco: coco["annotations"].clear(),
        ["has no object of the config's classes: there is nothing to learn"],
    ),
}


@pytest.mark.parametrize(("change", "words"), COCO_FAULTS.values(), ids=COCO_FAULTS)
def test_fault_of_annotations(coco, tmp_path, change, words):
    change_coco(tmp_path, change)
    one_fault(coco, *words)


COCO_WARNINGS = {
    "degenerate box": (
        set_annotation(bbox=[5, 5, 0, 20]),
        ["1 boxes are empty or outside, and are left out: those of annotations 2"],
    ),
    "box beyond": (set_annotation(bbox=[5, 5, 90, 20]), ["clipped: those of annotations 2"]),
    "no object": (
        lambda coco: coco["annotations"].pop(1),
        ["1 images have no object: b.png"],
    ),
    "mask beyond its box": (
        set_annotation(segmentation=[[5, 5, 25, 5, 25, 39]]),
        ["1 masks reach beyond their box"],
    ),
    "listed size": (
        lambda coco: coco["images"][1].update(height=41),
        ["1 of 3 images have another height and width than listed"],
    ),
}


@pytest.mark.parametrize(("change", "words"), COCO_WARNINGS.values(), ids=COCO_WARNINGS)
def test_warning_of_annotations(coco, tmp_path, change, words):
    change_coco(tmp_path, change)
    one_warning(coco, *words)


def test_number_of_classes_in_the_model(coco):
    coco.model.head.num_classes = 80
    one_fault(coco, "model.head.num_classes=80 but the data set has 2 classes")


def test_absent_image(coco, tmp_path):
    (tmp_path / "images" / "b.png").unlink()
    one_fault(coco, "1 of 3 image files are missing")


def test_all_unreadable_images_are_named(coco, tmp_path):
    for name in ("a.png", "c.png"):
        path = tmp_path / "images" / name
        path.write_bytes(path.read_bytes()[:-40])
    found = one_fault(coco, "2 of 3 image files are empty, cut short or not images")
    assert found.unreadable == {f"{tmp_path}/images/a.png", f"{tmp_path}/images/c.png"}


def test_label_maps_beside_objects(coco, tmp_path):
    """HTC's; mmdet takes them from the prefix `seg`."""
    dataset = coco.train_dataloader.dataset
    dataset.pipeline[1]["with_seg"] = True
    one_fault(coco, "data_prefix needs the key 'seg'")
    dataset.data_prefix["seg"] = "stuff/"
    one_fault(coco, "3 of 3 label map files are missing", f"{tmp_path}/stuff/a.png")
    write_images(tmp_path / "stuff", ["a.png", "b.png", "c.png"])
    assert inspect(coco).faults == []


def test_several_faults_are_all_told(coco, tmp_path):
    def change(coco):
        coco["annotations"][0]["category_id"] = 99
        coco["annotations"][1]["bbox"] = None
        coco["annotations"][3]["bbox"] = [1, 2, 3]
        coco["annotations"][2]["segmentation"] = [1, 2, 3]

    change_coco(tmp_path, change)
    (tmp_path / "images" / "b.png").write_text("<html>")
    coco.model.head.num_classes = 3
    faults = inspect(coco).faults
    words = [
        "model.head.num_classes=3",
        "category_id=99",
        "annotation 2 has bbox=None; it must be four numbers, left, top, width and height in "
        "pixels (and 1 more like it)",
        "is a flat list",
        "1 of 3 image files are empty",
    ]
    assert len(faults) == len(words)
    for fault, word in zip(faults, words, strict=True):
        assert word in fault


def test_annotations_that_are_not_json_are_the_only_fault(coco, tmp_path):
    (tmp_path / "train.json").write_text('{"images"')
    one_fault(coco, "train.json is not JSON")


def test_value_of_label_maps(semantic, tmp_path):
    paint(tmp_path / "labels" / "a.png", 7)
    paint(tmp_path / "labels" / "c.png", 9)
    found = one_fault(semantic, "has the values", "3 classes are 0 to 2", "(and 1 more label maps")
    assert found.summary.splits["train"].images == 3


def test_values_that_start_at_one(semantic, tmp_path):
    paint(tmp_path / "labels" / "b.png", 3)
    one_fault(semantic, "b.png has the values 3", "dataset.reduce_zero_label=True")


def test_zero_label_reduced_in_error(semantic):
    """Grass is lost without a word, and road and sky take the names of grass and road."""
    semantic.train_dataloader.dataset.reduce_zero_label = True
    one_warning(semantic, "no pixel of sky", "40% of all", "if value 0 is a class, set")


def test_zero_label_disagrees(semantic):
    semantic.train_dataloader.dataset.pipeline[1]["reduce_zero_label"] = True
    one_fault(semantic, "has reduce_zero_label=False but LoadAnnotations in its pipeline True")


def test_label_map_in_colour_and_of_another_size(semantic, tmp_path):
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "labels" / "a.png")
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(tmp_path / "labels" / "b.png")
    faults = sorted(inspect(semantic).faults)
    assert "a.png is a colour picture" in faults[0]
    assert "b.png has (50, 40) pixels" in faults[1] and len(faults) == 2


def test_unreadable_image_and_label_map(semantic, tmp_path):
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    path = tmp_path / "labels" / "c.png"
    path.write_bytes(path.read_bytes()[:60])
    found = inspect(semantic)
    assert found.unreadable == {f"{tmp_path}/images/a.jpg", f"{tmp_path}/labels/c.png"}
    assert len(found.faults) == 2 and "1 of 3 label map files" in found.faults[1]


def test_absent_label_map(semantic, tmp_path):
    (tmp_path / "labels" / "a.png").unlink()
    one_fault(semantic, "1 of 3 label map files are missing")


def test_label_map_without_labels(semantic, tmp_path):
    Image.fromarray(np.full((40, 50), 255, np.uint8)).save(tmp_path / "labels" / "a.png")
    one_warning(semantic, "1 label maps have no labelled pixel: a.png")


def test_a_config_without_data_is_refused(coco):
    with pytest.raises(DatasetError, match="the config has no data to check: none of test_data"):
        inspect_config(coco, ("test",))


def test_first_fault_stops_the_check_before_a_training(coco, tmp_path):
    from swin_mm.datasets.check import check_config

    (tmp_path / "images" / "b.png").unlink()
    coco.model.head.num_classes = 3
    with pytest.raises(DatasetError, match="num_classes=3"):
        check_config(coco)
