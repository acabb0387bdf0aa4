"""Made mistakes in small data with label maps, each with the words its message must hold."""

from pathlib import Path

import numpy as np
import pytest
from broken_data import paint, refuse
from mmengine.config import Config
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from swin_mm.datasets.check import Inspection, check_config, inspect_config
from swin_mm.datasets.check.config import _check as check_with

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def root(tmp_path) -> Path:
    """Four images of grass (0), road (1) and sky (2): a quarter, a quarter, a half of each."""
    (tmp_path / "images" / "north").mkdir(parents=True)
    (tmp_path / "labels" / "north").mkdir(parents=True)
    labels = np.full((HEIGHT, WIDTH), 2, dtype=np.uint8)
    labels[:10, :15], labels[:10, 15:] = 0, 1
    for name in ("a", "b", "c", "north/d"):
        pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


def config(root: Path, **dataset) -> Config:
    settings = {
        "type": "BaseSegDataset",
        "data_root": str(root),
        "data_prefix": {"img_path": "images", "seg_map_path": "labels"},
        "metainfo": {"classes": ("grass", "road", "sky")},
        "pipeline": [{"type": "LoadAnnotations"}],
    }
    return Config({"default_scope": "mmseg", "train_dataloader": {"dataset": settings | dataset}})


def test_good_data_is_counted(root):
    summary = check_config(config(root))
    train = summary.splits["train"]
    assert (train.images, train.instances, train.empty) == (4, None, 0)
    assert train.per_class == {"grass": 0.25, "road": 0.25, "sky": 0.5}
    assert train.warnings == []
    assert summary.rows()[1:] == [
        ("train data", "4 images"),
        ("train classes", "grass 25.0%, road 25.0%, sky 50.0%"),
    ]


@pytest.mark.parametrize(("indices", "names"), [(2, ["a", "b"]), (-1, ["north/d"]), ([1], ["b"])])
def test_a_part_is_counted_alone(root, indices, names):
    for name in {"a", "b", "c", "north/d"} - set(names):
        (root / "labels" / f"{name}.png").write_bytes(b"damaged")
    found = check_config(config(root, indices=indices)).splits["train"]
    assert (found.images, found.warnings) == (len(names), [])


def test_ignored_pixels_do_not_count(root):
    for name in ("a", "b", "c", "north/d"):
        paint(
            root / f"labels/{name}.png", 255, size=(HEIGHT, 15)
        )  # what stays: 10 x 15 of road, 10 x 15 of sky
    train = check_config(config(root)).splits["train"]
    assert train.per_class == {"grass": 0, "road": 0.5, "sky": 0.5}
    assert "no pixel of grass in the 4 label maps read; 50% of all pixels" in train.warnings[0]


def test_wholly_ignored_map_is_counted(root):
    paint(root / "labels/b.png", 255, size=(HEIGHT, WIDTH))
    summary = check_config(config(root))
    assert summary.splits["train"].describe() == "4 images, 1 images without labels"


def test_classes_not_set(root):
    refuse(config(root, metainfo=None), "train_dataloader.dataset.metainfo.classes is not set")


def test_value_out_of_range(root):
    paint(root / "labels/c.png", 7)
    refuse(
        config(root),
        f"{root}/labels/c.png has the values 7, but 3 classes are 0 to 2 (and 255 is ignored)",
    )


def test_values_that_start_at_one(root):
    paint(root / "labels/b.png", 3)
    refuse(config(root), "has the values 3", "train_dataloader.dataset.reduce_zero_label=True")


def test_zero_label_reduced(root):
    """Values 1 to 3 count as classes 0 to 2, and 0 is ignored; 4 is out of range."""
    for name in ("a", "b", "c", "north/d"):
        paint(root / f"labels/{name}.png", 3, size=(HEIGHT, WIDTH))
        paint(root / f"labels/{name}.png", 0, size=(HEIGHT, 15))
        paint(root / f"labels/{name}.png", 1, size=(HEIGHT, 5))
    cfg = config(root, reduce_zero_label=True)
    assert check_config(cfg).splits["train"].per_class == {"grass": 0.25, "road": 0, "sky": 0.75}
    paint(root / "labels/a.png", 4)
    refuse(cfg, "has the values 4, but 3 classes are 1 to 3")


def test_reduced_labels_equal_what_mmseg_trains_on(root):
    paint(root / "labels/a.png", 3)
    paint(root / "labels/a.png", 255, size=(1, 2))
    results = {
        "seg_map_path": str(root / "labels" / "a.png"),
        "reduce_zero_label": True,
        "seg_fields": [],
    }
    trained = LoadAnnotations()(results)["gt_seg_map"]
    expected = {k: (trained == k).sum() / (trained != 255).sum() for k in range(3)}
    (root / "names.txt").write_text("a\n")
    cfg = config(root, reduce_zero_label=True, ann_file="names.txt")
    shares = check_config(cfg).splits["train"].per_class
    assert list(shares.values()) == pytest.approx(list(expected.values()))


def test_zero_label_reduced_in_error(root):
    """Grass is lost without a word, and road and sky take the names of grass and road."""
    (warning,) = check_config(config(root, reduce_zero_label=True)).splits["train"].warnings
    for words in ("no pixel of sky", "25% of all", "if value 0 is a class, set"):
        assert words in warning


def test_several_faults_are_all_told(root):
    paint(root / "labels/a.png", 7)
    paint(root / "labels/c.png", 9)
    paths = (root / "images/north/d.jpg", root / "labels/north/d.png")
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])
    found = inspect_config(config(root))
    assert found.unreadable == set(map(str, paths))
    words = ("1 of 4 image files", "1 of 4 label map files", "(and 1 more label maps like it)")
    assert all(any(word in fault for fault in found.faults) for word in words), found.faults
    assert len(found.faults) == len(words), found.faults


def test_label_map_without_labels_is_told_of_all(root):
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(root / "labels/a.png")
    (warning,) = inspect_config(config(root)).summary.warnings()
    assert "1 label maps have no labelled pixel: a.png" in warning


def test_zero_label_disagrees_with_the_pipeline(root):
    pipeline = [{"type": "LoadAnnotations", "reduce_zero_label": True}]
    refuse(
        config(root, pipeline=pipeline),
        "has reduce_zero_label=False but LoadAnnotations in its pipeline True",
    )


def test_default_of_the_data_sets_class_is_known(root):
    """ADE20KDataset reduces labels and takes .jpg images without being told."""
    cfg = config(root, type="ADE20KDataset")
    del cfg.train_dataloader.dataset["metainfo"]
    summary = check_config(cfg)
    assert len(summary.classes) == 150
    shares = summary.splits["train"].per_class
    assert shares["wall"] == pytest.approx(1 / 3) and shares["building"] == pytest.approx(2 / 3)


def test_some_of_the_data_sets_own_classes(root):
    cfg = config(root, type="ADE20KDataset", metainfo={"classes": ("building", "wall")})
    shares = check_config(cfg).splits["train"].per_class
    assert shares == pytest.approx({"building": 2 / 3, "wall": 1 / 3})
    refuse(
        config(root, type="ADE20KDataset", metainfo={"classes": ("wall", "moon")}),
        "metainfo.classes: new classes",
        "moon",
    )


def test_sixteen_bit_values_are_not_wrapped(root):
    labels = np.full((HEIGHT, WIDTH), 257, dtype=np.uint16)  # 1 after mmseg's cast to bytes
    Image.fromarray(labels).save(root / "labels" / "a.png")
    refuse(config(root), "has the values 257")


def test_label_map_in_colour(root):
    colours = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(colours).save(root / "labels" / "a.png")
    refuse(config(root), f"{root}/labels/a.png is a colour picture of shape (20, 30, 3)")


def test_grey_saved_as_colour_has_a_remedy_of_its_own(root):
    labels = Image.open(root / "labels" / "a.png").convert("RGB")
    labels.save(root / "labels" / "a.png")
    refuse(config(root), "its channels are equal", "getchannel(0)")


def test_label_map_compressed_with_loss(root):
    """Whatever its name; the values near edges are none that were drawn."""
    for name in ("a", "b", "c", "north/d"):
        labels = Image.open(root / "labels" / f"{name}.png").copy()
        labels.save(root / "labels" / f"{name}.jpg", quality=50)
    refuse(
        config(root, seg_map_suffix=".jpg"),
        "a.jpg is a JPEG, which changes the values",
        is_alone=False,
    )
    (root / "labels" / "a.jpg").rename(root / "labels" / "a.png")
    refuse(config(root), "a.png is a JPEG")


def test_palette_picture_that_opencv_turns_into_colours(root):
    labels = Image.open(root / "labels" / "a.png").copy()
    labels.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    labels.save(root / "labels" / "a.png")
    pipeline = [{"type": "LoadAnnotations", "imdecode_backend": "cv2"}]
    loaded = LoadAnnotations(imdecode_backend="cv2")(
        {
            "seg_map_path": str(root / "labels" / "a.png"),
            "reduce_zero_label": False,
            "seg_fields": [],
        }
    )["gt_seg_map"]
    assert loaded.shape == (HEIGHT, WIDTH, 3)
    refuse(config(root, pipeline=pipeline), "leave imdecode_backend out of LoadAnnotations")


def test_label_map_of_fractions(root):
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray(np.array(Image.open(path)) / np.float32(2)).save(path.with_suffix(".tif"))
    refuse(config(root, seg_map_suffix=".tif"), "a.tif holds fractions", is_alone=False)


@pytest.mark.parametrize(
    ("count", "reduced", "most"), [(256, False, 255), (255, True, 254), (300, False, 255)]
)
def test_more_classes_than_labels_of_eight_bits(root, count, reduced, most):
    classes = tuple(map(str, range(count)))
    cfg = config(root, metainfo={"classes": classes}, reduce_zero_label=reduced)
    refuse(cfg, f"has {count} classes", f"at most {most} classes")
    fewer = config(root, metainfo={"classes": classes[:most]}, reduce_zero_label=reduced)
    assert len(check_config(fewer).classes) == most


def test_one_class_leaves_nothing_to_learn(root):
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray((np.array(Image.open(path)) == 2).astype(np.uint8)).save(path)
    for reduced in (False, True):
        cfg = config(root, metainfo={"classes": ("sky",)}, reduce_zero_label=reduced)
        refuse(
            cfg,
            "has one class",
            "metainfo.classes=('background', NAME)",
            "num_classes=2",
            is_alone=False,
        )
    cfg = config(root, metainfo={"classes": ("background", "sky")})
    assert check_config(cfg).splits["train"].per_class == {"background": 0.5, "sky": 0.5}


@pytest.mark.parametrize("value", [255, 0])
def test_black_and_white_masks_leave_one_label(root, value):
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray((np.array(Image.open(path)) == 2).astype(np.uint8) * value).save(path)
    cfg = config(root, metainfo={"classes": ("ground", "sky")})
    refuse(cfg, "all labelled pixels are of the class 'ground'", "write 1 for 255")


def test_a_part_of_the_label_maps_does_not_prove_that_nothing_is_learned(root):
    """Two of four are read, and have one class alone."""
    for name in ("a", "c"):
        paint(root / f"labels/{name}.png", 0, size=(HEIGHT, WIDTH))
    found = check_with(config(root), ["train"], Inspection(label_maps=2))
    assert any("no pixel of road, sky in the 2" in warning for warning in found.warnings())
    for name in ("b", "north/d"):
        paint(root / f"labels/{name}.png", 0, size=(HEIGHT, WIDTH))
    assert "all labelled pixels are of the class 'grass'" in inspect_config(config(root)).faults[0]


def test_no_label_at_all(root):
    for path in (root / "labels").rglob("*.png"):
        Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(path)
    refuse(config(root), "train_dataloader: no pixel has a label")


def test_palette_picture_holds_indices(root):
    labels = Image.open(root / "labels" / "a.png").copy()
    labels.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    labels.save(root / "labels" / "a.png")
    assert labels.mode == "P"
    assert check_config(config(root)).splits["train"].per_class["sky"] == 0.5


def test_label_map_of_another_size(root):
    Image.fromarray(np.zeros((WIDTH, HEIGHT), np.uint8)).save(root / "labels" / "b.png")
    refuse(config(root), "b.png has (30, 20) pixels", "b.jpg (20, 30)")


def test_image_without_label_map(root):
    (root / "labels" / "north" / "d.png").unlink()
    refuse(config(root), f"1 of 4 label map files are missing: {root}/labels/north/d.png; put them")


def test_label_map_without_image(root):
    (root / "images" / "c.jpg").unlink()
    warnings = check_config(config(root)).splits["train"].warnings
    assert warnings == [f"{root}/labels: 1 label maps have no image: c.png"]


@pytest.mark.parametrize(("folder", "what"), [("images", "image"), ("labels", "label map")])
def test_a_truncated_file_is_refused(root, folder, what):
    path = next((root / folder).glob("a.*"))
    path.write_bytes(path.read_bytes()[:-30])
    refuse(config(root), f"1 of 4 {what} files are empty, cut short or not images: {path}")


def test_no_folder_of_images(root):
    refuse(
        config(root, data_prefix={"img_path": "nowhere", "seg_map_path": "labels"}),
        f"there is no folder {root}/nowhere of images",
    )


def test_suffix_does_not_match(root):
    refuse(
        config(root, img_suffix=".tif"),
        "ends in '.tif' (there is .jpg)",
        "--cfg-options train_dataloader.dataset.img_suffix=",
    )


def test_data_prefix_key_lacking(root):
    refuse(
        config(root, data_prefix={"img_path": "images"}),
        "data_prefix needs the key 'seg_map_path', got ['img_path']",
    )


def test_list_of_names(root):
    (root / "names.txt").write_text("a\nnorth/d\n")
    summary = check_config(config(root, ann_file="names.txt")).splits["train"]
    assert summary.images == 2
    assert summary.warnings == []  # the rest of the folder is left out on purpose
    (root / "names.txt").write_text("a\nz\n")
    refuse(
        config(root, ann_file="names.txt"),
        "1 of 2 image files are missing",
        "images/z.jpg",
        is_alone=False,
    )
    (root / "names.txt").write_text("\n")
    refuse(config(root, ann_file="names.txt"), "names no image")
    refuse(config(root, ann_file="no.txt"), f"there is no file {root}/no.txt of image names")


def test_test_data_may_come_without_label_maps(root):
    cfg = config(root, data_prefix={"img_path": "images"})
    cfg.test_dataloader = cfg.pop("train_dataloader")
    assert check_config(cfg, splits=("test",)).splits["test"].images == 4


def test_files_on_a_server_are_left_alone(root):
    summary = check_config(config(root, data_root="s3://bucket/data"))
    assert "files on a server are not checked" in summary.splits["train"].warnings[0]
