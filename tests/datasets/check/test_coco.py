"""Made mistakes in small COCO data, each with the words its message must hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from broken_data import HEIGHT, WIDTH, change_coco, refuse, write_coco, write_images
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from pycocotools import mask as coco_mask

from swin_mm.datasets.check import DatasetError, check_config, inspect_config


@pytest.fixture
def root(tmp_path) -> Path:
    """Three images with three cats and a dog."""
    write_coco(tmp_path)
    return tmp_path


def config(root: Path, **dataset) -> Config:
    cfg = Config.fromfile(root / "detector.py")
    cfg.pop("model")
    cfg.train_dataloader.dataset.update(dataset)
    return cfg


def change_object(root: Path, index: int, **values) -> None:
    change_coco(root, lambda coco: coco["annotations"][index].update(values))


def warnings(cfg: Config) -> list[str]:
    return check_config(cfg).splits["train"].warnings


def test_good_data_is_counted(root):
    found = inspect_config(config(root))
    assert (found.faults, found.summary.warnings(), found.unreadable) == ([], [], set())
    change_coco(root, lambda coco: coco["annotations"].pop(1))
    summary = check_config(config(root))
    train = summary.splits["train"]
    assert summary.classes == ("cat", "dog")
    assert (train.images, train.instances, train.empty) == (3, 3, 1)
    assert train.per_class == {"cat": 2, "dog": 1}
    assert train.warnings == [f"{root}/train.json: 1 images have no object: b.png"]
    assert summary.rows() == [
        ("classes", "2"),
        ("train data", "3 images, 3 objects, 1 images without objects"),
        ("train classes", "cat 2, dog 1"),
    ]


def test_absent_annotations(root):
    refuse(
        config(root, ann_file="no/such.json"),
        f"there is no annotation file {root}/no/such.json (not even the folder {root}/no)",
        "--cfg-options train_dataloader.dataset.ann_file=",
    )


def test_no_annotations_named(root):
    cfg = config(root, data_root="")
    del cfg.train_dataloader.dataset["ann_file"]
    refuse(cfg, "there is no annotation file (none named)")


@pytest.mark.parametrize(
    "content", [b"", b'{"images": [', b"\xff\xd8\xff\xe0"], ids=["empty", "cut", "binary"]
)
def test_a_file_that_is_no_json_is_refused(root, content):
    (root / "train.json").write_bytes(content)
    refuse(config(root), "train.json is not JSON", "cut short")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{"image_id": 1}], "train.json is a list, as COCO results are"),
        ("text", "train.json is JSON but not COCO"),
        ({"images": []}, "has no list 'annotations'"),
        ({"images": {}, "annotations": [], "categories": []}, "has no list 'images'"),
        ({"images": [], "annotations": [], "categories": []}, "lists no images"),
        (
            {"images": [{"id": 1, "height": 2}], "annotations": [], "categories": []},
            "images[0] lacks file_name, width",
        ),
        ({"images": [7], "annotations": [], "categories": []}, "images[0] lacks file_name, height"),
    ],
    ids=["results", "text", "no annotations", "dict", "no images", "image keys", "number"],
)
def test_a_file_that_is_no_coco_is_refused(root, content, words):
    (root / "train.json").write_text(json.dumps(content))
    refuse(config(root), words)


@pytest.mark.parametrize("key", ["id", "bbox"])
def test_annotation_key_lacking(root, key):
    change_coco(root, lambda coco: coco["annotations"][2].pop(key))
    refuse(config(root), f"annotations[2] lacks {key}; every one of annotations needs")


def test_class_names_differ(root):
    refuse(
        config(root, metainfo={"classes": ("Cat", "doge", "emu")}),
        "classes Cat, doge, emu are not those of",
        "cat, dog: it lacks 'Cat' (is it 'cat'?), 'doge' (is it 'dog'?), 'emu';",
        "set train_dataloader.dataset.metainfo.classes",
        is_alone=False,
    )


def test_class_names_of_coco_on_other_data(root):
    cfg = config(root)
    del cfg.train_dataloader.dataset["metainfo"]
    refuse(cfg, "classes person, bicycle, car and 77 more are not those of", "cat, dog")


def test_mmdet_numbers_classes_in_the_files_order(root):
    """The fault that the order is checked for: a cat gets label 0, which mmdet then calls a dog."""
    swapped = {"classes": ("dog", "cat")}
    dataset = CocoDataset(
        data_root=str(root), ann_file="train.json", data_prefix={"img": "images/"}, metainfo=swapped
    )
    label = dataset.get_data_info(0)["instances"][0]["bbox_label"]  # of a cat
    assert dataset.metainfo["classes"][label] == "dog"
    refuse(
        config(root, metainfo=swapped),
        "lists dog, cat but",
        "mmdet numbers classes in the file's order: write them so, ('cat', 'dog')",
    )


def test_fewer_classes_than_the_file_are_legal(root):
    summary = check_config(config(root, metainfo={"classes": ("dog",)})).splits["train"]
    assert summary.per_class == {"dog": 1} and summary.instances == 1
    assert summary.empty == 2
    assert "classes not in the config are left out: cat" in summary.warnings[0]


@pytest.mark.parametrize(
    ("metainfo", "words"),
    [
        ({"classes": "cat"}, "is the text 'cat', neither a tuple of names nor a file"),
        ({"CLASSES": ("cat",)}, "has CLASSES, which nothing reads since mmdet 3"),
        ({"classes": ()}, "is not set: write the names, ('cat', 'dog')"),
    ],
    ids=["text", "upper case", "none"],
)
def test_classes_misstated(root, metainfo, words):
    cfg = config(root)
    cfg.train_dataloader.dataset.metainfo = metainfo
    with pytest.raises(DatasetError, match="train_dataloader.dataset.metainfo") as error:
        check_config(cfg)
    assert words in str(error.value)


def test_classes_from_a_file(root):
    (root / "names.txt").write_text("cat\ndog\n")
    summary = check_config(config(root, metainfo={"classes": f"{root}/names.txt"}))
    assert summary.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("key", "section"), [("image_id", "images"), ("category_id", "categories")]
)
def test_dangling_ids(root, key, section):
    change_object(root, 1, **{key: "3"})  # text where numbers are used is another id
    refuse(
        config(root),
        f"1 annotations name {section} that the file does not list: annotation 2 has {key}='3'",
        f"add them to {section}",
    )


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_ids_used_twice(root, section):
    first = json.loads((root / "train.json").read_text())[section][0]["id"]
    change_coco(root, lambda coco: coco[section][1].update(id=first))
    with pytest.raises(DatasetError, match=f"1 ids of {section} are used twice: {first}"):
        check_config(config(root))


def test_missing_images(root):
    refuse(config(root, data_prefix={"img": "nowhere/"}), "3 of 3", f"{root}/nowhere/a.png")
    (root / "images" / "a.png").unlink()
    refuse(
        config(root),
        f"1 of 3 image files are missing: {root}/images/a.png",
        "correct data_root and data_prefix",
    )


def test_data_prefix_key_lacking(root):
    cfg = config(root)
    cfg.train_dataloader.dataset.data_prefix = {"img_path": "images/"}
    with pytest.raises(DatasetError, match="data_prefix needs the key 'img', got .'img_path'."):
        check_config(cfg)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0, 0.95], ids=["empty", "nearly all"])
def test_a_truncated_image_is_refused(root, suffix, keep):
    path = root / "images" / f"b{suffix}"
    if suffix == ".jpg":
        write_images(root / "jpg", ["b.jpg"])
        (root / "jpg" / "b.jpg").rename(path)
        change_coco(root, lambda coco: coco["images"][1].update(file_name="b.jpg"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refuse(config(root), f"1 of 3 image files are empty, cut short or not images: {path}")


def test_not_an_image(root):
    (root / "images" / "c.png").write_text("<html>404</html>")
    refuse(config(root), "cut short or not images", "c.png", "fetch them again")


@pytest.mark.parametrize(
    "box",
    [[1, 2, 3], "1 2 3 4", [1, 2, None, 4], [1, 2, float("nan"), 4], {"x": 1}],
    ids=["three", "text", "null", "nan", "dict"],
)
def test_box_is_not_four_numbers(root, box):
    change_object(root, 0, bbox=box)
    refuse(config(root), "annotation 1 has bbox=", "left, top, width and height")


@pytest.mark.parametrize("area", [None, 2e10, True], ids=["none", "beyond COCO's", "bool"])
def test_area_that_is_not_scored(root, area):
    change_object(root, 0, area=area)
    refuse(config(root), f"annotation 1 has area={area}", "at most 1e+10")


@pytest.mark.parametrize("size", [0, None, "40"])
def test_image_size_is_not_pixels(root, size):
    change_coco(root, lambda coco: coco["images"][0].update(height=size))
    refuse(config(root), "image 0 has width and height", "both must be pixels")


def test_image_size_beyond_all_decoders(root):
    change_coco(root, lambda coco: coco["images"][0].update(width=10**6, height=10**6))
    refuse(config(root), "(1000000, 1000000)", "at most 1073741824 pixels: write the size of the")


@pytest.mark.parametrize(
    ("box", "warning"),
    [
        ([WIDTH + 3, 5, 10, 10], "1 boxes are empty or outside, and are left out"),
        ([5, 5, -4, 10], "1 boxes are empty or outside, and are left out"),
        ([5, 5, 0.5, 10], "1 boxes are empty or outside, and are left out"),
        ([-8, 5, 20, 20], "1 boxes reach beyond their image, and are clipped"),
        ([5, 5, WIDTH, 20], "1 boxes reach beyond their image, and are clipped"),
    ],
    ids=["outside", "negative", "below a pixel", "left", "right"],
)
def test_odd_boxes_are_legal_and_counted(root, box, warning):
    change_object(root, 0, bbox=box)
    found = warnings(config(root))
    assert [warning in line for line in found].count(True) == 1, found


@pytest.mark.parametrize("as_corners", [True, False])
def test_boxes_that_are_corners_are_refused(root, as_corners):
    left, top = 0.6 * WIDTH, 0.6 * HEIGHT

    def change(coco):
        for annotation in coco["annotations"]:
            annotation["bbox"] = [left, top, 1.5 * left, 1.5 * top]
        if not as_corners:  # one fits as left, top, width and height alone
            coco["annotations"][0]["bbox"] = [left, top, 0.5 * left, 0.1 * top]

    change_coco(root, change)
    cfg = config(root, pipeline=[dict(type="LoadAnnotations", with_bbox=True)])
    if as_corners:
        refuse(cfg, "4 of 4 boxes reach beyond their image", "bbox must be left, top, w")
    else:
        found = warnings(cfg)
        assert any("3 boxes reach beyond their image" in line for line in found), found


def test_warnings_are_logged_once(root, monkeypatch):
    change_object(root, 1, bbox=[5, 5, 0, 0])
    change_coco(root, lambda coco: coco["annotations"].pop(2))
    cfg = config(root)
    cfg.val_dataloader = cfg.train_dataloader
    messages = []
    monkeypatch.setattr(
        "swin_mm.datasets.check.config.print_log", lambda text, *_: messages.append(text)
    )
    check_config(cfg)
    assert len(messages) == len(set(messages)) and "left out" in messages[0]
    assert sum("c.png" in message for message in messages) == 1


def test_a_lacking_mask_is_refused_where_masks_train(root):
    change_coco(root, lambda coco: coco["annotations"][1].pop("segmentation"))
    refuse(config(root), "annotation 2 has no segmentation", "with_mask=False")
    boxes_only = [{"type": "mmdet.LoadAnnotations", "with_bbox": True}]
    check_config(config(root, pipeline=boxes_only))


def test_faults_of_masks_are_told(root):
    change_object(root, 1, segmentation=[5, 5, 25, 5, 25, 25])
    refuse(config(root), "segmentation of annotation 2 is a flat list", "[[x1, y1, x2, y2")


def test_listed_size_differs_from_the_file(root):
    change_coco(root, lambda coco: coco["images"][1].update(height=41))
    (warning,) = warnings(config(root))
    assert "1 of 3 images have another height and width than listed" in warning
    assert f"{root}/images/b.png" in warning


def test_label_maps_beside_objects(root):
    """HTC's; mmdet takes them from the prefix `seg`."""
    cfg = config(root)
    dataset = cfg.train_dataloader.dataset
    dataset.pipeline[1]["with_seg"] = True
    refuse(cfg, "data_prefix needs the key 'seg'")
    dataset.data_prefix["seg"] = "stuff/"
    refuse(cfg, "3 of 3 label map files are missing", f"{root}/stuff/a.png")
    write_images(root / "stuff", ["a.png", "b.png", "c.png"])
    assert inspect_config(cfg).faults == []


def test_test_data_may_come_without_annotations(root):
    change_coco(root, lambda coco: coco.pop("annotations"))
    cfg = config(root)
    cfg.test_dataloader = cfg.pop("train_dataloader")
    summary = check_config(cfg, splits=("test",)).splits["test"]
    assert (summary.images, summary.instances) == (3, 0)


def test_files_on_a_server_are_left_alone(root):
    summary = check_config(config(root, backend_args={"backend": "petrel"}))
    assert "files on a server are not checked" in summary.splits["train"].warnings[0]
    assert summary.splits["train"].describe() == "not checked"


@pytest.mark.parametrize("form", ["polygons", "run lengths", "boxes"])
def test_annotations_of_another_resolution(root, form):
    """Made for images of twice the size: boxes and masks are not those of the files."""
    mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8, order="F")
    mask[5:25, 5:25] = 1
    runs = coco_mask.encode(mask)
    runs["counts"] = runs["counts"].decode()

    def change(coco):
        for image in coco["images"]:
            image.update(height=2 * HEIGHT, width=2 * WIDTH)
        for annotation in coco["annotations"]:
            if form == "run lengths":
                annotation["segmentation"] = runs
            else:
                annotation["bbox"] = [60, 10, 20, 20]  # the files end at 50 x 40
                annotation["segmentation"] = [[60, 10, 80, 10, 80, 30, 60, 30]]

    change_coco(root, change)
    loading = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": form != "boxes"}
    refuse(
        config(root, pipeline=[loading]),
        "3 of 3 images have another height and width than listed",
        "the first has (40, 50), not (80, 100): write sizes and annotations in the pixels",
    )


def test_text_that_is_not_strict_utf_8_is_refused(root):
    content = '{"images": [], "note": "\ud800"}'.encode("utf-8", "surrogatepass")
    (root / "train.json").write_bytes(content)
    refuse(config(root), "is not JSON", "can't decode byte 0xed")


def test_several_faults_are_all_told(root):
    def change(coco):
        coco["annotations"][0]["category_id"] = 99
        coco["annotations"][1]["bbox"] = None
        coco["annotations"][3]["bbox"] = [1, 2, 3]
        coco["annotations"][2]["segmentation"] = [1, 2, 3]

    change_coco(root, change)
    for name in ("a.png", "b.png"):
        (root / "images" / name).write_text("<html>")
    cfg = config(root)
    cfg.model = dict(head=dict(num_classes=3))
    found = inspect_config(cfg)
    words = [
        "model.head.num_classes=3",
        "category_id=99",
        "annotation 2 has bbox=None; it must be four numbers, left, top, width and height in "
        "pixels (and 1 more like it)",
        "is a flat list",
        "2 of 3 image files are empty",
    ]
    assert len(found.faults) == len(words)
    for fault, word in zip(found.faults, words, strict=True):
        assert word in fault
    assert found.unreadable == {f"{root}/images/a.png", f"{root}/images/b.png"}


def test_a_config_without_data_is_refused(root):
    with pytest.raises(DatasetError, match="the config has no data to check: none of test_data"):
        inspect_config(config(root), ("test",))
