"""Made mistakes in small COCO data, each with the words its message must hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as coco_mask

from swin_mm.datasets.check import DatasetError, check_config

HEIGHT, WIDTH = 40, 50


@pytest.fixture
def root(tmp_path) -> Path:
    """Three images (the last without objects) with cats and dogs, and a training config's files."""
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    names = ["a.png", "b.jpg", "c.png"]
    for name in names:
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    square = [[5, 5, 25, 5, 25, 25, 5, 25]]
    coco = {
        "images": [
            {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": 1 + i,
                "image_id": i % 2,
                "category_id": 3 + 4 * (i == 2),
                "bbox": [5, 5, 20, 20],
                "area": 400,
                "iscrowd": 0,
                "segmentation": square,
            }
            for i in range(3)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    write(tmp_path, coco)
    return tmp_path


def read(root: Path) -> dict:
    return json.loads((root / "train.json").read_text())


def write(root: Path, coco) -> None:
    (root / "train.json").write_text(json.dumps(coco))


def config(root: Path, **dataset) -> Config:
    settings = {
        "type": "CocoDataset",
        "data_root": f"{root}/",
        "ann_file": "train.json",
        "data_prefix": {"img": "images/"},
        "metainfo": {"classes": ("cat", "dog")},
        "pipeline": [{"type": "LoadAnnotations", "with_bbox": True, "with_mask": True}],
    }
    return Config({"default_scope": "mmdet", "train_dataloader": {"dataset": settings | dataset}})


def refuse(cfg: Config, *words: str) -> None:
    with pytest.raises(DatasetError) as error:
        check_config(cfg)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_good_data_is_counted(root):
    summary = check_config(config(root))
    train = summary.splits["train"]
    assert summary.classes == ("cat", "dog")
    assert (train.images, train.instances, train.empty) == (3, 3, 1)
    assert train.per_class == {"cat": 2, "dog": 1}
    assert train.warnings == [f"{root}/train.json: 1 images have no object: c.png"]
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
    write(root, content)
    refuse(config(root), words)


@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area"])
def test_annotation_key_lacking(root, key):
    coco = read(root)
    del coco["annotations"][2][key]
    write(root, coco)
    refuse(config(root), f"annotations[2] lacks {key}; every one of annotations needs")


def test_class_names_differ(root):
    refuse(
        config(root, metainfo={"classes": ("Cat", "doge", "emu")}),
        "classes Cat, doge, emu are not those of",
        "cat, dog: it lacks 'Cat' (is it 'cat'?), 'doge' (is it 'dog'?), 'emu';",
        "set train_dataloader.dataset.metainfo.classes",
    )


def test_class_names_of_coco_on_other_data(root):
    cfg = config(root)
    del cfg.train_dataloader.dataset["metainfo"]
    refuse(cfg, "classes person, bicycle, car and 77 more are not those of", "cat, dog")


def test_class_order_differs(root):
    refuse(
        config(root, metainfo={"classes": ("dog", "cat")}),
        "lists dog, cat but",
        "mmdet numbers classes in the file's order: write them so, ('cat', 'dog')",
    )


def test_mmdet_numbers_classes_in_the_files_order(root):
    """The fault that the order is checked for: a cat gets label 0, which mmdet then calls a dog."""
    dataset = CocoDataset(
        data_root=str(root),
        ann_file="train.json",
        data_prefix={"img": "images/"},
        metainfo={"classes": ("dog", "cat")},
    )
    cat = read(root)["annotations"][0]
    assert (cat["image_id"], cat["category_id"]) == (0, 3)
    label = dataset.get_data_info(0)["instances"][0]["bbox_label"]
    assert dataset.metainfo["classes"][label] == "dog"


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
    refuse(config(root, metainfo=metainfo), "train_dataloader.dataset.metainfo", words)


def test_classes_from_a_file(root):
    (root / "names.txt").write_text("cat\ndog\n")
    summary = check_config(config(root, metainfo={"classes": f"{root}/names.txt"}))
    assert summary.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("key", "section"), [("image_id", "images"), ("category_id", "categories")]
)
def test_dangling_ids(root, key, section):
    coco = read(root)
    coco["annotations"][1][key] = "3"  # text where numbers are used is another id
    write(root, coco)
    refuse(
        config(root),
        f"1 annotations name {section} that the file does not list: annotation 2 has {key}='3'",
        f"add them to {section}",
    )


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_ids_used_twice(root, section):
    coco = read(root)
    coco[section][1]["id"] = coco[section][0]["id"]
    write(root, coco)
    refuse(config(root), f"1 ids of {section} are used twice: {coco[section][0]['id']}")


def test_missing_images(root):
    (root / "images" / "a.png").unlink()
    refuse(
        config(root),
        f"1 of 3 image files are missing: {root}/images/a.png",
        "correct data_root and data_prefix",
    )


def test_missing_folder_of_images(root):
    refuse(
        config(root, data_prefix={"img": "nowhere/"}),
        "3 of 3 image files are missing",
        f"{root}/nowhere/a.png",
    )


def test_data_prefix_key_lacking(root):
    refuse(
        config(root, data_prefix={"img_path": "images/"}),
        "data_prefix needs the key 'img', got ['img_path']",
    )


@pytest.mark.parametrize("name", ["a.png", "b.jpg"])
@pytest.mark.parametrize("keep", [0, 0.3, 0.95], ids=["empty", "third", "nearly all"])
def test_a_truncated_image_is_refused(root, name, keep):
    path = root / "images" / name
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
    coco = read(root)
    coco["annotations"][0]["bbox"] = box
    write(root, coco)
    refuse(config(root), "annotation 1 has bbox=", "left, top, width and height")


@pytest.mark.parametrize("area", [None, 2e10, True], ids=["none", "beyond COCO's", "bool"])
def test_area_that_is_not_scored(root, area):
    coco = read(root)
    coco["annotations"][0]["area"] = area
    write(root, coco)
    refuse(config(root), f"annotation 1 has area={area}", "at most 1e+10")


@pytest.mark.parametrize("size", [0, None, "40"])
def test_image_size_is_not_pixels(root, size):
    coco = read(root)
    coco["images"][0]["height"] = size
    write(root, coco)
    refuse(config(root), "image 0 has width and height", "both must be pixels")


def test_image_size_beyond_all_decoders(root):
    coco = read(root)
    coco["images"][0].update(width=10**6, height=10**6)
    write(root, coco)
    refuse(config(root), "(1000000, 1000000)", "at most 1073741824 pixels: write the size of the")


@pytest.mark.parametrize(
    ("box", "warning"),
    [
        ([WIDTH + 3, 5, 10, 10], "1 boxes are empty or outside, and are left out"),
        ([5, 5, 0, 10], "1 boxes are empty or outside, and are left out"),
        ([5, 5, -4, 10], "1 boxes are empty or outside, and are left out"),
        ([5, 5, 0.5, 10], "1 boxes are empty or outside, and are left out"),
        ([-8, 5, 20, 20], "1 boxes reach beyond their image, and are clipped"),
        ([5, 5, WIDTH, 20], "1 boxes reach beyond their image, and are clipped"),
    ],
    ids=["outside", "flat", "negative", "below a pixel", "left", "right"],
)
def test_odd_boxes_are_legal_and_counted(root, box, warning):
    coco = read(root)
    coco["annotations"][0]["bbox"] = box
    write(root, coco)
    warnings = check_config(config(root)).splits["train"].warnings
    assert [warning in line for line in warnings].count(True) == 1, warnings


@pytest.mark.parametrize("as_corners", [True, False])
def test_boxes_that_are_corners_are_refused(root, as_corners):
    coco = read(root)
    image = coco["images"][0]
    left, top = 0.6 * image["width"], 0.6 * image["height"]
    boxes = [[left, top, 1.5 * left, 1.5 * top] for _ in range(4)]
    if not as_corners:  # one fits as left, top, width and height alone
        boxes[0] = [left, top, 0.5 * left, 0.1 * top]
    first = coco["annotations"][0]
    coco["annotations"] = [
        {**first, "id": 1 + i, "image_id": image["id"], "bbox": box} for i, box in enumerate(boxes)
    ]
    write(root, coco)
    cfg = config(root, pipeline=[dict(type="LoadAnnotations", with_bbox=True)])
    if as_corners:
        refuse(cfg, "4 of 4 boxes reach beyond their image", "bbox must be left, top, w")
    else:
        warnings = check_config(cfg).splits["train"].warnings
        assert any("3 boxes reach beyond their image" in line for line in warnings), warnings


def test_warnings_are_logged_once(root, monkeypatch):
    coco = read(root)
    coco["annotations"][0]["bbox"] = [5, 5, 0, 0]
    write(root, coco)
    cfg = config(root)
    cfg.val_dataloader = cfg.train_dataloader
    messages = []
    monkeypatch.setattr(
        "swin_mm.datasets.check.config.print_log", lambda text, *_: messages.append(text)
    )
    check_config(cfg)
    assert len(messages) == 2 and "left out" in messages[0] and "c.png" in messages[1]


def test_a_lacking_mask_is_refused_where_masks_train(root):
    coco = read(root)
    del coco["annotations"][1]["segmentation"]
    write(root, coco)
    refuse(config(root), "annotation 2 has no segmentation", "with_mask=False")
    boxes_only = [{"type": "mmdet.LoadAnnotations", "with_bbox": True}]
    check_config(config(root, pipeline=boxes_only))


def test_mask_is_a_flat_list(root):
    coco = read(root)
    coco["annotations"][1]["segmentation"] = [5, 5, 25, 5, 25, 25]
    write(root, coco)
    refuse(config(root), "segmentation of annotation 2 is a flat list", "[[x1, y1, x2, y2")


def test_mask_of_another_size(root):
    coco = read(root)
    runs = coco_mask.encode(np.asfortranarray(np.ones((WIDTH, HEIGHT), np.uint8)))
    coco["annotations"][0]["segmentation"] = {"size": runs["size"], "counts": "abc"}
    write(root, coco)
    refuse(config(root), "mask of annotation 1 has size [50, 40], its image [40, 50]")


def test_listed_size_differs_from_the_file(root):
    coco = read(root)
    coco["images"][1]["height"] = 41
    write(root, coco)
    warnings = check_config(config(root)).splits["train"].warnings
    assert "1 of 3 images have another height and width than listed" in warnings[-1]
    assert f"{root}/images/b.jpg" in warnings[-1]


def test_test_data_may_come_without_annotations(root):
    coco = read(root)
    del coco["annotations"]
    write(root, coco)
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
    coco = read(root)
    for image in coco["images"]:
        image.update(height=2 * HEIGHT, width=2 * WIDTH)
    for annotation in coco["annotations"]:
        if form == "run lengths":
            mask = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8, order="F")
            mask[5:25, 5:25] = 1
            runs = coco_mask.encode(mask)
            runs["counts"] = runs["counts"].decode()
            annotation["segmentation"] = runs
        else:
            annotation["bbox"] = [60, 10, 20, 20]  # the files end at 50 x 40
            annotation["segmentation"] = [[60, 10, 80, 10, 80, 30, 60, 30]]
    write(root, coco)
    loading = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": form != "boxes"}
    refuse(
        config(root, pipeline=[loading]),
        "3 of 3 images have another height and width than listed",
        "the first has (40, 50), not (80, 100): write sizes and annotations in the pixels",
    )


def test_text_that_is_not_strict_utf_8_is_refused(tmp_path):
    from swin_mm.datasets.check.annotations import read_coco

    path = tmp_path / "a.json"
    path.write_bytes('{"images": [], "note": "\ud800"}'.encode("utf-8", "surrogatepass"))
    with pytest.raises(DatasetError, match="is not JSON .*can't decode byte 0xed"):
        read_coco(str(path), "train_dataloader.dataset", {"images": set()}, "detection")
