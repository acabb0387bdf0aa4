"""Names of images in annotations against files on disk, and classes that are listed twice."""

import json
import unicodedata

import pytest
from mmengine.config import Config

from swin_mm.datasets.check import DatasetError, check_config
from swin_mm.datasets.check.corrections import (
    check_listed_once,
    find_files,
    find_placeholders,
    match_names,
    merge_classes,
    suggest_matching,
)

COMPOSED, APART = (unicodedata.normalize(form, "Größe.png") for form in ("NFC", "NFD"))
LABEL_STUDIO = "/data/local-files/?d=my%20data%5Cphotos/im%200.png"


def make(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")


def listing(*names):
    return {"images": [{"id": i, "file_name": name} for i, name in enumerate(names)]}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("im0.png", "im0.png"),
        ("D:/my data/photos/im0.png", "im0.png"),
        ("d:im0.png", "im0.png"),
        (r"C:\photos\im0.png", "photos/im0.png"),
        (r"\\server\share\im0.png", "im0.png"),
        (r"photos\im0.png", "im0.png"),
        (r"photos\im0.png", "photos/im0.png"),
        ("photos/im0.png", "photos\\im0.png"),  # unpacked by a tool that knows no folders
        ("/home/ann/photos/im0.png", "b/im0.png"),
        ("../photos/im0.png", "im0.png"),
        ("./im0.png", "im0.png"),
        ("im0.png", "deep/down/im0.png"),
        ("IM0.PNG", "im0.png"),
        ("im0.png", "IM0.Png"),
        (APART, COMPOSED),
        (COMPOSED, APART),
        (COMPOSED.upper(), APART),
        ("im%200.png", "im 0.png"),
        ("im+0.png", "im 0.png"),
        ("im%25200.png", "im 0.png"),
        ("im 0.png", "im%200.png"),
        ("Gr%C3%B6%C3%9Fe.png", APART),
        (LABEL_STUDIO, "im 0.png"),
        ("/data/upload/3/0a1b2c3d-im0.png", "im0.png"),
        ("s3://bucket/photos/im0.png", "im0.png"),
        ("https://host/photos/im0.png?token=a/b", "im0.png"),
        ("file:///D:/photos/im0.png", "im0.png"),
    ],
)
def test_names_match_files(tmp_path, name, file):
    make(tmp_path, file, "other/im1.png")
    coco, changes = match_names(listing(name), str(tmp_path))
    found = coco["images"][0]["file_name"]
    assert (tmp_path / found).samefile(tmp_path / file)
    assert len(changes) == (not (tmp_path / name).is_file())


def test_nearest_file_is_chosen(tmp_path):
    make(tmp_path, "a/im0.png", "b/im0.png", "b/IM0.png", "c/00000000-x.png", "c/x.png")
    names = ["D:/b/im0.png", "D:/b/IM0.png", "D:/A/im0.png", "/c/00000000-x.png"]
    assert list(find_files(names, str(tmp_path)).values()) == [
        ["b/im0.png"],
        ["b/IM0.png"],
        ["a/im0.png"],
        ["c/00000000-x.png"],
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["D:/im0.png"], "names match several files in .*im0.png is a/im0.png or b/im0.png"),
        (["D:/x/im2.png"], "1 of 1 names match no file in .*D:/x/im2.png; put them there"),
        (["D:/a/im0.png", "E:/a/im0.png"], "D:/a/im0.png and E:/a/im0.png are a/im0.png"),
        (["train/im1.png"], "train/im1.png; put them there"),  # not what is below val
    ],
)
def test_unclear_matches_are_refused(tmp_path, names, message):
    make(tmp_path, "a/im0.png", "b/im0.png", "val/im1.png")
    with pytest.raises(DatasetError, match=message):
        match_names(listing(*names), str(tmp_path))
    if len(names) == 1:
        assert suggest_matching(names, str(tmp_path)) == ""


def labelled(*names, used=None, group=None):
    used = range(len(names)) if used is None else used
    categories = [{"id": 10 + i, "name": n, "supercategory": group} for i, n in enumerate(names)]
    annotations = [{"id": 1 + i, "category_id": 10 + i} for i in used]
    return {"categories": categories, "annotations": annotations}


def test_classes_of_one_name_are_merged():
    coco = labelled("cat", "dog", "cat ", unicodedata.normalize("NFD", "é"), "é")
    merged, changes = merge_classes(coco)
    assert [c["id"] for c in merged["categories"]] == [10, 11, 13]
    assert [a["category_id"] for a in merged["annotations"]] == [10, 11, 10, 13, 13]
    assert changes == ["categories called 'cat', 'é' were made one"]
    assert merge_classes(merged) == (merged, [])
    check_listed_once(merged, "F", ["cat", "é"])
    check_listed_once(coco, "F", ["dog"])
    with pytest.raises(
        DatasetError, match="F: several .* called 'cat', 'é',.* init-config --coco F"
    ):
        check_listed_once(coco, "F", ["cat", "é"])


@pytest.mark.parametrize(
    ("coco", "group"),
    [
        (labelled("pets", "cat", "dog", used=[1, 2], group="pets"), "pets"),
        (labelled("cat", "pets", used=[0], group="pets"), "pets"),
        (labelled("pets", "cat", group="pets"), None),  # it has objects
        (labelled("pets", "cat", used=[1], group="animals"), None),
        (labelled("pets", used=[], group="pets"), None),  # the only class
        (labelled("None", "cat", used=[1]), None),
        (labelled("_background_", "cat", used=[1]), "_background_"),  # of labelme
        (labelled("cat", "__ignore__", used=[0]), "__ignore__"),
        (labelled("Background", "cat", used=[1]), "Background"),
        (labelled("_background_", "cat"), None),  # it has objects
    ],
)
def test_categories_that_are_no_class(coco, group):
    assert [*find_placeholders(coco)] == ([group] if group else [])


def test_training_says_what_matches_names_and_merges_classes(tmp_path):
    make(tmp_path / "images", "im0.png")
    coco = listing("D:/im0.png") | labelled("cat", "cat")
    coco["images"][0].update(height=8, width=8)
    for annotation in coco["annotations"]:
        annotation.update(image_id=0, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
    dataset = {
        "type": "CocoDataset",
        "data_root": f"{tmp_path}/",
        "ann_file": "train.json",
        "data_prefix": {"img": "images/"},
        "metainfo": {"classes": ("cat",)},
    }
    cfg = Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}})
    (tmp_path / "train.json").write_text(json.dumps(coco))
    with pytest.raises(
        DatasetError, match="called 'cat', .*init-config --coco .*train.json` writes"
    ):
        check_config(cfg)
    (tmp_path / "train.json").write_text(json.dumps(merge_classes(coco)[0]))
    with pytest.raises(
        DatasetError,
        match=r"1 of 1 image files are missing.*\(im0.png for D:/im0.png\): .*train.json --images ",
    ):
        check_config(cfg)


def test_names_that_only_look_the_same_are_told_apart(tmp_path):
    coco = listing("a.png") | labelled(unicodedata.normalize("NFD", "é"), "dog ")
    coco["images"][0].update(height=8, width=8)
    for annotation in coco["annotations"]:
        annotation.update(image_id=0, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
    (tmp_path / "train.json").write_text(json.dumps(coco))
    dataset = {
        "type": "CocoDataset",
        "ann_file": f"{tmp_path}/train.json",
        "data_prefix": {"img": f"{tmp_path}/"},
        "metainfo": {"classes": ("é", "dog")},
    }
    cfg = Config({"default_scope": "mmdet", "train_dataloader": {"dataset": dataset}})
    with pytest.raises(DatasetError, match=r"it has 'e\\u0301', .* 'dog' \(it has 'dog '"):
        check_config(cfg)
