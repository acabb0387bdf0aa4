"""Reading COCO files: classes, folders of images, masks, splits and copies."""

import json

import pytest
from own_data import NAMES, write_coco

from swin_mm.datasets.check import DatasetError
from swin_mm.init_config import InitConfigError, Options
from swin_mm.init_config.coco import has_masks, make_usable, read_part


@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("train.json", "train"),
        ("train.json", "images/train"),
        ("train.json", "images"),
        ("train.json", "."),
        ("annotations/instances_train.json", "train"),
        ("annotations/instances_train.json", "images/train"),
        ("train/_annotations.coco.json", "train"),
    ],
)
def test_images_are_found_beside_the_annotations(tmp_path, file, folder):
    write_coco(tmp_path, images=2, file=file, image_folder=folder)
    part = read_part(str(tmp_path / file), None)
    assert part.images == str((tmp_path / folder).resolve())
    assert part.sizes() == [(64, 96)] * 2
    assert part.class_counts() == dict.fromkeys(NAMES, 2)


def test_images_in_folders_of_their_own(tmp_path):
    write_coco(tmp_path, images=2, names=["a/1.png", "b/1.png"])
    part = read_part(str(tmp_path / "train.json"), None)
    assert part.image_files()[1] == str(tmp_path / "train" / "b" / "1.png")


def test_absolute_file_names_need_no_folder(tmp_path):
    names = [str(tmp_path / "far" / f"{i}.png") for i in range(2)]
    write_coco(tmp_path, images=2, names=names)
    part = read_part(str(tmp_path / "train.json"), None)
    assert (part.images, part.image_files()) == ("", names)


@pytest.mark.parametrize(
    ("changes", "images", "message"),
    [
        (dict(annotations=[]), None, "no annotations, so there is nothing to learn"),
        (dict(categories=((3, 5),)), None, "categories.0. has name=5; it must be a text"),
        (dict(categories=()), None, "has no categories"),
        ({}, "nowhere", "--images: there is no folder"),
        ({}, "empty", "2 of 2 names match no file in .*empty: 000.png, .*--images"),
    ],
    ids=["no annotations", "number", "no categories", "no folder", "other folder"],
)
def test_odd_files_are_refused(tmp_path, changes, images, message):
    write_coco(tmp_path, images=2, **changes)
    (tmp_path / "empty").mkdir()
    folder = None if images is None else str(tmp_path / images)
    with pytest.raises((InitConfigError, DatasetError), match=message):
        read_part(str(tmp_path / "train.json"), folder)


def test_missing_and_broken_files_are_told(tmp_path):
    with pytest.raises(InitConfigError, match="no annotation file .*train.json"):
        read_part(str(tmp_path / "train.json"), None)
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        read_part(str(tmp_path / "train.json"), None)


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_annotations_of_what_is_not_there_are_refused(tmp_path, key):
    coco = write_coco(tmp_path, images=2)
    coco["annotations"][0][key] = 1000
    (tmp_path / "train.json").write_text(json.dumps(coco))
    with pytest.raises(DatasetError, match=f"{key}=1000"):
        read_part(str(tmp_path / "train.json"), None)


def test_masks_count_only_if_all_objects_have_one(tmp_path):
    write_coco(tmp_path, images=2)
    part = read_part(str(tmp_path / "train.json"), None)
    assert has_masks([part]) == (True, "boxes and masks")
    del part.content["annotations"][0]["segmentation"]
    assert has_masks([part]) == (False, "boxes (1 of 6 objects have no mask)")
    write_coco(tmp_path, images=2, masks=False)
    part = read_part(str(tmp_path / "train.json"), None)
    assert has_masks([part]) == (False, "boxes (there are no masks)")


@pytest.mark.parametrize(
    ("segmentation", "is_refused"),
    [
        ([4, 6, 24, 6, 24, 26, 4, 26], True),
        ([[[4, 6], [24, 6], [24, 26]]], True),
        ([[4, 6, 24, 26]], False),
        ([[4, 6, 24, 26], [5, 7, 8, 9]], False),
        ([[]], False),
        ([], False),
        (None, False),
    ],
    ids=str,
)
def test_points_that_are_no_polygons_are_not_lost_in_silence(tmp_path, segmentation, is_refused):
    write_coco(tmp_path, images=2)
    part = read_part(str(tmp_path / "train.json"), None)
    for annotation in part.content["annotations"]:
        annotation["segmentation"] = segmentation
    if is_refused:
        with pytest.raises(InitConfigError, match=r"must be a list of polygons.*, got \[+4"):
            has_masks([part])
    else:
        assert has_masks([part]) == (False, "boxes (there are no masks)")


def test_a_split_takes_annotations_along(tmp_path):
    coco = write_coco(tmp_path, images=10, info={"year": 2024})
    part = read_part(str(tmp_path / "train.json"), None)
    train, val = part.split(Options(out=tmp_path / "own.py", val_share=0.2))
    assert (train.file, val.file) == (tmp_path / "own_train.json", tmp_path / "own_val.json")
    assert train.is_new and val.content["info"] == {"year": 2024}
    for key in ("images", "annotations"):
        both = train.content[key] + val.content[key]
        assert sorted(item["id"] for item in both) == [item["id"] for item in coco[key]]
    ids = {image["id"] for image in val.content["images"]}
    assert len(ids) == 2
    assert {annotation["image_id"] for annotation in val.content["annotations"]} == ids


def test_a_file_that_serves_is_left_alone(tmp_path):
    write_coco(tmp_path, images=2)
    part = read_part(str(tmp_path / "train.json"), None)
    assert make_usable(part, NAMES, tmp_path / "copy.json") == []
    assert part.file == tmp_path / "train.json" and not part.is_new


def test_classes_of_validation_are_put_in_order(tmp_path):
    """Also with other ids, and with a class that has no object there."""
    categories = ((5, NAMES[2]), (1, NAMES[0]), (8, "unused"))
    write_coco(tmp_path, images=2, categories=categories[:2], file="val.json")
    part = read_part(str(tmp_path / "val.json"), str(tmp_path / "train"))
    part.content["categories"].append(dict(id=8, name="unused"))
    changes = make_usable(part, NAMES, tmp_path / "copy.json")
    assert len(changes) == 1 and part.file == tmp_path / "copy.json" and part.is_new
    assert [c["name"] for c in part.content["categories"]] == list(NAMES)
    assert part.class_counts() == {NAMES[0]: 2, NAMES[1]: 0, NAMES[2]: 2}
    boxes = {a["category_id"]: a["bbox"][0] for a in part.content["annotations"]}
    assert boxes == {3: 4, 1: 32}  # each name keeps its objects


def test_objects_of_an_unknown_class_are_refused(tmp_path):
    write_coco(tmp_path, images=2, categories=((1, "cat"),), file="val.json")
    part = read_part(str(tmp_path / "val.json"), str(tmp_path / "train"))
    with pytest.raises(InitConfigError, match="has objects of 'cat', which the training file"):
        make_usable(part, NAMES, tmp_path / "copy.json")


def test_iscrowd_is_added(tmp_path):
    write_coco(tmp_path, images=2)
    part = read_part(str(tmp_path / "train.json"), None)
    del part.content["annotations"][0]["iscrowd"]
    assert "iscrowd=0 was added" in make_usable(part, NAMES, tmp_path / "copy.json")[0]
    assert all(annotation["iscrowd"] == 0 for annotation in part.content["annotations"])
