"""A folder as annotation tools leave it becomes a config, with the objects that were annotated."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS, NAMES, SPLITS, objects, write_as_jpeg
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from swin_mm.cli import init_config, test, train
from swin_mm.init_config import InitConfigError, Options, init_folder, init_segmentation

DETECTION = ["roboflow", "cvat", "yolo", "yolo_polygons", "voc", "labelme"]
WITH_POLYGONS = {"roboflow", "cvat", "yolo_polygons", "labelme"}
MASKS = ["masks", "binary_masks", "coloured_masks"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes a data set in a layout and a config for it, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make_config(layout, change=None, classes=None, images=(), **options):
        if not (tmp_path / "data").exists():
            LAYOUTS[layout](tmp_path / "data")
        if change is not None:
            change(tmp_path / "data")
        written = init_folder("data", images, classes, Options(preset="small", **options))
        cfg = Config.fromfile("my_config.py")
        init_default_scope(cfg.default_scope)
        return written, cfg

    return make_config


def is_in_docs(layout, written):
    """Whether the page says what is found in a layout, in its example or in its table."""
    said = f"found:   {written.found}"
    page = Path(__file__).parents[2].joinpath("docs/own_data.md").read_text()
    return f"| `{layout}` | `{said}` |" in page or f"init-config {layout}\n{said}\n" in page


def content_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("layout", DETECTION)
def test_boxes_and_polygons_are_those_annotated(tmp_path, make, layout):
    LAYOUTS[layout](tmp_path / "data")
    before = content_of(tmp_path / "data")
    written, cfg = make(layout)
    assert content_of(tmp_path / "data") == before
    assert is_in_docs(layout, written)
    assert cfg.classes == NAMES
    boxes = []
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build({**loader.dataset, "pipeline": []})
        for index in range(len(dataset)):
            sample = dataset.get_data_info(index)
            number = int(sample["img_path"].rpartition("/")[2][:3])
            assert (sample["height"], sample["width"]) == (64, 96)
            found = [(i["bbox_label"], *i["bbox"]) for i in sample["instances"]]
            expected = [(n, x, y, x + s, y + s) for n, x, y, s in objects(number)]
            assert np.allclose(found, expected, atol=1e-4)
            for instance, (_, left, top, side) in zip(
                sample["instances"], objects(number), strict=True
            ):
                if layout in WITH_POLYGONS:
                    points = np.reshape(instance["mask"], (-1, 2))
                    assert np.allclose(points.min(0), (left, top), atol=1e-4)
                    assert np.allclose(points.max(0), (left + side, top + side), atol=1e-4)
            boxes.append(number)
    assert sorted(boxes) == (
        sorted([*range(4), *range(2)])
        if layout in ("roboflow", "yolo", "yolo_polygons")
        else list(range(6))
    )
    assert ("boxes and masks" in written.data) == (layout in WITH_POLYGONS)


@pytest.mark.parametrize("layout", MASKS)
def test_masks_become_label_maps(tmp_path, make, layout):
    LAYOUTS[layout](tmp_path / "data")
    before = content_of(tmp_path / "data")
    written, cfg = make(layout)
    assert content_of(tmp_path / "data") == before
    assert is_in_docs(layout, written)
    classes = {
        "masks": ("class_0", "class_1", "class_2"),
        "binary_masks": ("background", "foreground"),
        "coloured_masks": ("background", *NAMES),
    }
    assert cfg.classes == classes[layout]
    loaders = (cfg.train_dataloader, cfg.val_dataloader)
    for loader, images in zip(loaders, SPLITS.values(), strict=True):
        dataset = DATASETS.build({**loader.dataset, "pipeline": []})
        assert len(dataset) == images
        for index in range(images):
            with Image.open(dataset.get_data_info(index)["seg_map_path"]) as image:
                labels = np.array(image)
            expected = np.zeros((64, 96), dtype=np.uint8)
            for label, left, top, side in objects(index):
                value = 1 if layout == "binary_masks" else label + 1
                expected[top : top + side, left : left + side] = value
            assert np.array_equal(labels, expected)


# Boxes alone and label maps; the other layouts become the same files, and `test_multi_band_run` has
# a detector of masks.
@pytest.mark.slow
@pytest.mark.parametrize("layout", ["voc", "coloured_masks"])
def test_two_commands_lead_to_a_trained_model_and_a_third_to_its_picture(
    tmp_path, monkeypatch, layout
):
    monkeypatch.chdir(tmp_path)
    LAYOUTS[layout](tmp_path / "data")
    init_config.main(["data", "--preset", "small"])
    loop = ["train_cfg.max_epochs=1"]
    if "masks" in layout:
        loop = ["train_cfg.max_iters=1", "default_hooks.checkpoint.interval=1"]
    train.main(["my_config.py", "--cfg-options", *loop])
    weights = "work_dirs/my_config/" + ("iter_1.pth" if "masks" in layout else "epoch_1.pth")
    test.main(["my_config.py", weights])
    assert (tmp_path / "work_dirs/my_config/predictions.png").stat().st_size > 10_000
    init_config.main(["data", "--preset", "small", "--force"])  # what is there is not mistaken


def test_a_config_within_its_data_is_written_again(tmp_path, monkeypatch):
    """Files written beside the config are not taken for the data."""
    LAYOUTS["yolo"](tmp_path)
    monkeypatch.chdir(tmp_path)
    found = [
        init_folder(".", [], None, Options(preset="small", force=True)).found for _ in range(2)
    ]
    assert found == ["YOLO labels (data.yaml): 4 train, 2 val images"] * 2


def test_what_was_found_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    LAYOUTS["voc"](tmp_path / "data")
    init_config.main(["data", "--preset", "small"])
    said = capsys.readouterr().out
    assert said.startswith(
        "found:   Pascal VOC annotations (6 xml files): 4 train, 2 val images\ndata:    4 training"
    )
    assert "converted to COCO files beside the config; yours stay as they are" in said


def rewrite(pattern, text):
    """Replaces what is in some files, or removes them where `text` is None."""

    def change(folder):
        for path in folder.glob(pattern):
            if text is not None:
                path.write_text(text)
            else:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def test_a_warning_is_said_once(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    LAYOUTS["yolo"](tmp_path / "data")
    rewrite("train/labels/002.txt", "")(tmp_path / "data")
    init_config.main(["data", "--preset", "small"])
    said = "".join(capfd.readouterr())
    assert said.count("1 images have no object: train/images/002.png") == 1


def test_a_folder_without_validation_is_split(make):
    written, _ = make("roboflow", rewrite("valid", None))
    assert written.found.endswith("4 train images")
    assert "3 training and 1 validation images" in written.data


def test_test_images_are_left_alone(tmp_path, make):
    def add_test(folder):
        shutil.copytree(folder / "valid", folder / "test")

    written, _ = make("roboflow", add_test)
    assert written.found.endswith("2 test, 4 train, 2 val images")
    assert "4 training and 2 validation" in written.data
    assert "2 test images are left for a test of your own" in written.notes


def test_shapes_that_labelme_takes_for_no_object_are_left_out(make):
    def mark(folder):
        for file in folder.glob("*.json"):
            content = json.loads(file.read_text())
            shape = content["shapes"][0]
            content["shapes"] += [{**shape, "label": f"{n}_"} for n in ("_background", "__ignore_")]
            content["shapes"].append(dict(label="x", shape_type="line", points=[[0, 0], [5, 5]]))
            file.write_text(json.dumps(content))

    written, cfg = make("labelme", mark)
    assert cfg.classes == NAMES
    said = (
        "objects that are called what is no object are left out: 6 '_background_', 6 '__ignore__'"
    )
    assert said in written.notes and "shapes without an area are left out: 6 line" in written.notes


@pytest.mark.parametrize("layout", ["labelme", "voc", "yolo"])
def test_images_without_annotations_are_told(make, layout):
    """Of YOLO's they have no object; of the others nobody has looked at them."""

    def forget(folder):
        (file,) = folder.rglob("001.json" if layout == "labelme" else "001.xml") or [None]
        file.unlink()

    written, cfg = make(layout, forget if layout != "yolo" else None)
    told = [note for note in written.notes if "without annotations are left out" in note]
    assert len(told) == (layout != "yolo")
    assert all(note.startswith("1 images") and "001." in note for note in told)


def test_names_of_labelme_begin_with_one_that_has_no_index(tmp_path, make):
    lines = "\n".join(("__ignore__", "_background_", "cat", "dog"))
    (tmp_path / "labels.txt").write_text(lines)
    _, cfg = make("masks", classes=["labels.txt"])
    assert cfg.classes == ("_background_", "cat", "dog")
    names = lines.partition("\n")[2]
    _, cfg = make(
        "masks", lambda folder: (folder / "class_names.txt").write_text(names), force=True
    )
    assert cfg.classes == ("_background_", "cat", "dog")


def test_keypoints_after_boxes_are_no_polygons(tmp_path, make):
    def add_keypoints(folder):
        with (folder / "data.yaml").open("a") as file:
            file.write("kpt_shape: [2, 3]\n")
        for file in folder.glob("*/labels/*.txt"):
            lines = [f"{line} 0.5 0.5 2 0.1 0.1 0" for line in file.read_text().splitlines()]
            file.write_text("\n".join(lines))

    written, _ = make("yolo", add_keypoints)
    assert "boxes (there are no masks)" in written.data


def test_names_of_indices_come_from_the_folder_or_the_command(make):
    table = "Pixel Value, Class\n0, unlabelled\n1, cat\n2, dog\n"
    _, cfg = make("masks", lambda folder: (folder / "_classes.csv").write_text(table))
    assert cfg.classes == ("unlabelled", "cat", "dog")
    _, cfg = make("masks", classes=["a", "b", "c"], force=True)
    assert cfg.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("classes", "values"),
    [
        (["dog", "background", "red, cat"], (1, 2, 0)),
        (["dog", "red, cat"], (0, 2, 1)),  # nothing is learned of the background
        (["nothing", "feline", "canine"], (0, 1, 2)),  # other names for those of the table
    ],
)
def test_names_given_do_not_change_whose_colours_are_whose(tmp_path, make, classes, values):
    table = {"background": (0, 0, 0), "red, cat": (20, 220, 60), "dog": (200, 10, 30)}
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in table.items()]
    _, cfg = make("coloured_masks", rewrite("labelmap.txt", "\n".join(lines)), classes=classes)
    assert cfg.classes == tuple(classes)
    for path in (tmp_path / "data/masks/train").iterdir():
        colours = np.array(Image.open(path).convert("RGB"))
        labels = np.array(Image.open(tmp_path / "my_config_masks" / "train" / path.name))
        for colour, value in zip(table.values(), values, strict=True):
            assert (labels[(colours == colour).all(-1)] == value).all()


def test_folders_that_are_named_are_converted_too(tmp_path, monkeypatch):
    LAYOUTS["coloured_masks"](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    folders = [[f"data/{kind}/{split}" for split in SPLITS] for kind in ("masks", "images")]
    init_segmentation(*folders, None, Options(preset="small"))
    assert Config.fromfile("my_config.py").classes == ("background", *NAMES)


def test_masks_that_differ_from_those_looked_at_are_refused(tmp_path, make, monkeypatch):
    def blur(folder):
        mask = np.zeros((64, 96), dtype=np.uint8)
        mask[:, 40:50] = 128
        Image.fromarray(mask).save(folder / "masks" / "train" / "001.png")

    monkeypatch.setattr("swin_mm.init_config.masks.LOOKED_AT", 1)
    with pytest.raises(InitConfigError, match="train/001.png does not hold 0 and 255, as other"):
        make("binary_masks", blur)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_indices_in_files_of_several_channels(make, mode):
    def convert(folder):
        for path in folder.glob("masks/*/*.png"):
            Image.open(path).convert("L").convert(mode).save(path)

    written, cfg = make("masks", convert)
    assert written.found.startswith("masks with indices as grey colours") and cfg.num_classes == 3


def test_masks_beside_their_images(tmp_path, make):
    def move(folder):
        for mask in sorted(folder.glob("masks/*/*.png")):
            mask.rename(folder / "images" / mask.parent.name / f"{mask.stem}_mask.png")

    written, cfg = make("masks", move)
    assert written.found == "masks with indices: 4 train, 2 val images"
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, "pipeline": []})
    assert [dataset.get_data_info(i)["seg_map_path"][-12:] for i in range(2)] == [
        "000_mask.png",
        "001_mask.png",
    ]


def rename_masks(folder):
    for mask in sorted(folder.glob("masks/*/*.png")):
        mask.rename(mask.with_name(f"mask_{mask.name}"))


def as_cvat_xml(folder):
    (folder / "annotations" / "instances_default.json").unlink()
    (folder / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")


def move(folder, pattern, place):
    """Moves files to `place`, where `{split}` is the folder of the first level."""
    for path in sorted(folder.glob(pattern)):
        split = path.relative_to(folder).parts[0]
        target = folder / place.format(split={"valid": "val"}.get(split, split)) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def as_ultralytics(folder):
    """Splits within `images` and `labels`, names by number, no test images."""
    for kind in ("images", "labels"):
        move(folder, f"*/{kind}/*", kind + "/{split}")
    (folder / "data.yaml").write_text(
        "path: ../datasets/pets\ntrain: images/train\nval: images/val\ntest: images/test\n"
        "names: {0: cat, 1: dog}\n"
    )


def as_label_studio(folder):
    """All images in one folder, and the names in a text file."""
    shutil.rmtree(folder / "valid")
    for kind in ("images", "labels"):
        move(folder, f"train/{kind}/*", kind)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("cat\ndog\n")


def as_darknet(folder):
    """Labels beside the images, as CVAT exports them."""
    shutil.rmtree(folder / "valid")
    move(folder, "train/*/*", "obj_{split}_data")
    (folder / "data.yaml").unlink()
    (folder / "obj.names").write_text("cat\ndog\n")


def as_hotcoco(folder):
    """The names beside the labels of each split."""
    for split in SPLITS:
        (folder / split / "labels" / "data.yaml").write_text("nc: 2\nnames: [cat, dog]\n")
    (folder / "data.yaml").unlink()


def as_linked(folder):
    """The data elsewhere, and links that lead to it and around in a circle."""
    shutil.copytree(folder / "train", folder.parent / "elsewhere")
    shutil.rmtree(folder / "train")
    (folder / "train").symlink_to(folder.parent / "elsewhere")
    (folder / "train" / "again").symlink_to(folder)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (as_ultralytics, "(data.yaml): 4 train, 2 val images"),
        (as_label_studio, "(classes.txt): 4 images"),
        (as_darknet, "(obj.names): 4 train images"),
        (as_hotcoco, "(train/labels/data.yaml): 4 train, 2 val images"),
        (as_linked, "(data.yaml): 4 train, 2 val images"),
        (rewrite("data.yaml", "names: [cat, dog]"), "(data.yaml): 4 train, 2 val images"),
    ],
)
def test_other_layouts_of_yolo(make, change, found):
    written, cfg = make("yolo", change)
    assert written.found == f"YOLO labels {found}"
    assert cfg.classes == NAMES
    assert sum(len(json.loads(p.read_text())["annotations"]) for p in written.files[:2]) == (
        2 * sum(int(word) for word in found.split() if word.isdigit())
    )


def test_the_same_images_for_training_and_validation_are_noted(make):
    paths = "train: train/images\nval: train/images\nnames: [cat, dog]\n"
    written, _ = make("yolo", rewrite("data.yaml", paths))
    assert "data.yaml names the same images for training and validation" in written.notes


def test_voc_with_lists_for_all_training_and_for_tests(make):
    def rename(folder):
        lists = folder / "ImageSets" / "Main"
        (lists / "train.txt").rename(lists / "trainval.txt")
        (lists / "val.txt").rename(lists / "test.txt")

    written, _ = make("voc", rename)
    assert sorted(written.found.partition(": ")[2].split(", ")) == ["2 test images", "4 train"]


def rename_voc(folder, names):
    """Gives the six images other names, in their files and in the lists."""
    for index, name in enumerate(names):
        for file in folder.glob(f"*/{index:03d}.*"):
            file.rename(file.with_name(name + file.suffix))
        for file in folder.glob("ImageSets/Main/*.txt"):
            text = file.read_text(encoding="utf-8").replace(f"{index:03d}\n", f"{name}\n")
            file.write_text(text, encoding="utf-8")


def test_names_with_blanks_in_lists_of_voc(make, capsys):
    """As cameras and Windows write them; a number may follow, as in the lists of one class."""

    def rename(folder):
        rename_voc(folder, ["IMG 12", "été à Paris", "b (2)", "d", "e 1", "f"])
        file = folder / "ImageSets/Main/train.txt"
        file.write_text(file.read_text(encoding="utf-8").replace("\nd\n", "\nd  1\n"), "utf-8-sig")

    written, _ = make("voc", rename)
    assert written.found == "Pascal VOC annotations (6 xml files): 4 train, 2 val images"
    names = [i["file_name"] for i in json.loads(Path("my_config_train.json").read_text())["images"]]
    expected = ["IMG 12", "b (2)", "d", "été à Paris"]
    assert sorted(names) == [f"JPEGImages/{name}.jpg" for name in expected]
    assert not any("left out" in note for note in written.notes)


def test_files_of_voc_in_no_list_are_told(make):
    written, _ = make("voc", rewrite("ImageSets/Main/train.txt", "000\n001\n"))
    assert written.found == "Pascal VOC annotations (6 xml files): 2 train, 2 val images"
    assert (
        "no list in ImageSets/Main names 2 xml files, which are left out: 002.xml, 003.xml"
        in written.notes
    )


def test_coco_as_published_with_captions_and_keypoints(tmp_path, make):
    def add(folder):
        coco = json.loads((folder / "annotations/instances_default.json").read_text())
        (folder / "annotations/person_keypoints_default.json").write_text(json.dumps(coco))
        coco["annotations"] = [dict(id=1, image_id=1, caption="a cat")]
        (folder / "annotations/captions_default.json").write_text(json.dumps(coco))

    written, _ = make("cvat", add)
    assert written.found == "COCO annotations (annotations/instances_default.json): 6 images"


def test_names_of_coco_images_that_differ_are_matched(make):
    def rename(folder):
        file = folder / "annotations" / "instances_default.json"
        coco = json.loads(file.read_text())
        for image in coco["images"]:
            image["file_name"] = "C:\\upload\\" + image["file_name"].upper()
        file.write_text(json.dumps(coco))

    written, _ = make("cvat", rename)
    assert "6 names of images were replaced" in " ".join(written.notes)


def test_a_folder_of_images_is_for_coco_alone(make):
    with pytest.raises(InitConfigError, match="--images goes with COCO annotations, and data has"):
        make("voc", images=["data/JPEGImages"])


def test_words_in_names_of_other_folders_and_files_do_not_mislead(make):
    """A folder called segmentation above images, and images whose names begin with seg."""

    def nest(folder):
        for file in sorted(folder.glob("*/*/*.png")):
            kind, split = file.relative_to(folder).parts[:2]
            target = folder / "segmentation" / split / kind / f"seg_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)

    written, _ = make("masks", nest)
    assert written.found == "masks with indices: 4 train, 2 val images"


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("masks", write_as_jpeg, "is a JPEG, which changes the values"),
        ("coloured_masks", rewrite("labelmap.txt", None), "3 colours.* road:128.* 200,10,30"),
        ("coloured_masks", rewrite("labelmap.txt", "a:0,0,0\n"), "colours of no class: 20,220,60"),
        ("coloured_masks", rewrite("labelmap.txt", "a:0,0\n"), "a name and three numbers"),
        ("coloured_masks", rewrite("labelmap.txt", "road\n"), "three numbers.*got 'road'"),
        ("yolo", rewrite("train/labels/002.txt", "5 0.5 0.5 0.1 0.1"), "002.txt, line 1: class 5"),
        ("yolo", rewrite("train/labels/002.txt", "0 48 32 20 20"), "parts of the image's width"),
        ("yolo", rewrite("train/labels/002.txt", "0 0.5 nan 0.1 0.1"), "0 to 1, got nan"),
        ("yolo", rewrite("train/labels/002.txt", "cat 0.5 0.5 0.1 0.1"), "numbers are expected"),
        ("yolo", rewrite("train/labels/002.txt", "0 0.5 0.5 0.1"), "points of a polygon"),
        ("yolo", rewrite("*/labels", None), "no image of .*data.yaml has labels"),
        ("yolo", rewrite("*/labels/*.txt", ""), "have no object, so there is nothing to learn"),
        ("yolo", rewrite("data.yaml", "names: [a, a]"), "different names"),
        ("yolo", rewrite("data.yaml", "names: [a, '', b]"), "data.yaml: class 1 has no name"),
        (
            "yolo",
            rewrite("data.yaml", "names: [a]\ntrain: train/labels/002.txt"),
            "names the file train/labels/002.txt for train: name the folder of the images there",
        ),
        (
            "yolo",
            rewrite("data.yaml", "names: [a]\ntrain: far/away"),
            "names far/away for train, which is not",
        ),
        ("voc", rewrite("Annotations/002.xml", "<annotation><object>"), "no Pascal VOC annotation"),
        (
            "voc",
            rewrite("JPEGImages/002.jpg", None),
            "of the image 002.jpg, of which there is none",
        ),
        (
            "voc",
            rewrite("ImageSets/Main/*.txt", "other\n"),
            "ImageSets/Main name none of the 6 xml files, which are 000.xml, 001",
        ),
        ("cvat", rewrite("annotations", None), "no data set is recognised in data .6 .png"),
        ("masks", rename_masks, "no mask in .*masks/train is named like .*000.png does"),
        ("cvat", as_cvat_xml, "no data set is recognised in data .6 .png, 1 .xml"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, make, layout, change, message):
    with pytest.raises(InitConfigError, match=message):
        make(layout, change)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_several_coco_files_are_not_guessed_between(make):
    def copy(folder):
        shutil.copytree(folder / "annotations", folder / "older")

    with pytest.raises(InitConfigError, match="2 COCO files could be the data.*--coco"):
        make("cvat", copy)


def test_an_absent_folder_is_refused():
    with pytest.raises(InitConfigError, match="there is no folder nowhere"):
        init_folder("nowhere", [], None, Options())
