"""EXIF orientation against annotations; what is right is what a model would be shown."""

import json

import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from swin_mm.datasets.check import DatasetError, check_config
from swin_mm.datasets.check.sizes import (
    Sizes,
    compare_sizes,
    explained_share,
    fits_better_turned,
    notes_against_turning,
)
from swin_mm.datasets.reader import Reader
from swin_mm.init_config import Options, init_detection, init_segmentation

STORED, SHOWN = (64, 80), (80, 64)  # height and width of a picture that lies on a side
UNTURNED = "color_ignore_orientation"


def save(path, orientation: int, labels: np.ndarray | None = None, **settings) -> None:
    """Writes a JPEG with an orientation, bright where `labels` are not 0."""
    labels = np.zeros(STORED, np.uint8) if labels is None else labels
    pixels = np.random.default_rng(0).integers(0, 60, (*labels.shape, 3)) + 150 * labels[..., None]
    image = Image.fromarray(pixels.astype(np.uint8))
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(path, exif=exif, quality=97, **settings)


def coco_config(root, sizes, orientations, box=(3, 4, 20, 30), **loading) -> Config:
    (root / "images").mkdir()
    images, annotations = [], []
    for index, (size, orientation) in enumerate(zip(sizes, orientations, strict=True), 1):
        save(root / "images" / f"{index}.jpg", orientation)
        images.append(dict(id=index, file_name=f"{index}.jpg", height=size[0], width=size[1]))
        annotations.append(
            dict(id=index, image_id=index, category_id=1, iscrowd=0, bbox=box, area=600)
        )
    coco = dict(images=images, annotations=annotations, categories=[dict(id=1, name="cat")])
    (root / "train.json").write_text(json.dumps(coco))
    dataset = dict(
        type="CocoDataset",
        data_root=str(root),
        ann_file="train.json",
        data_prefix=dict(img="images"),
        metainfo=dict(classes=("cat",)),
        pipeline=[dict(type="LoadImageFromFile", **loading), dict(type="LoadAnnotations")],
    )
    return Config(dict(default_scope="mmdet", train_dataloader=dict(dataset=dataset)))


def warnings(cfg: Config) -> list[str]:
    return check_config(cfg, ("train",)).splits["train"].warnings


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_as_displayed_are_right(tmp_path, orientation):
    assert warnings(coco_config(tmp_path, [SHOWN] * 3, [orientation] * 3)) == []


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_as_stored_are_refused_with_what_serves(tmp_path, orientation):
    cfg = coco_config(tmp_path, [STORED] * 3, [orientation] * 3)
    option = f"train_dataloader.dataset.pipeline.0.color_type={UNTURNED}"
    with pytest.raises(DatasetError) as error:
        check_config(cfg, ("train",))
    message = str(error.value)
    assert f"--cfg-options {option}" in message and "\n" not in message
    assert "swap height and width in" in message and "turns them as EXIF says" in message
    key, value = option.split("=")
    cfg.merge_from_dict({key: value}, allow_list_keys=True)
    assert warnings(cfg) == []


def test_annotations_as_displayed_do_not_fit_a_loader_that_does_not_turn(tmp_path):
    cfg = coco_config(tmp_path, [SHOWN] * 3, [6] * 3, color_type=UNTURNED)
    with pytest.raises(DatasetError, match="pipeline.0.color_type=color;") as error:
        check_config(cfg, ("train",))
    assert "leaves them as stored" in str(error.value)


def test_boxes_beyond_the_listed_size_say_that_the_sizes_are_wrong(tmp_path):
    """The box ends at 75 pixels, of 80 as displayed; listed are 64."""
    cfg = coco_config(tmp_path, [STORED] * 3, [6] * 3, box=[3, 4, 20, 71])
    with pytest.raises(DatasetError, match="boxes reach beyond the listed sizes") as error:
        check_config(cfg, ("train",))
    assert "swap height and width" in str(error.value) and "color_type" not in str(error.value)


def test_no_setting_serves_both_ways_of_annotating(tmp_path):
    cfg = coco_config(tmp_path, [STORED, SHOWN, STORED], [6, 6, 8])
    with pytest.raises(DatasetError, match="2 of 3 images .* no setting serves all"):
        check_config(cfg, ("train",))


def test_tiff_is_turned_by_every_setting(tmp_path):
    """OpenCV and Pillow turn TIFF, whatever `color_type`."""
    cfg = coco_config(tmp_path, [STORED], [6])
    path = tmp_path / "images" / "1.tif"
    Image.new("RGB", STORED[::-1]).save(path, tiffinfo={0x112: 6})
    coco = json.loads((tmp_path / "train.json").read_text())
    coco["images"][0]["file_name"] = "1.tif"
    (tmp_path / "train.json").write_text(json.dumps(coco))
    assert mmcv.imread(path, flag=UNTURNED).shape[:2] == SHOWN
    with pytest.raises(DatasetError, match="write the images again") as error:
        check_config(cfg, ("train",))
    assert "color_type" not in str(error.value)


def test_sizes_swapped_without_any_orientation(tmp_path):
    cfg = coco_config(tmp_path, [SHOWN] * 2, [1, 1])
    with pytest.raises(DatasetError, match=r"the first has \(64, 80\), not \(80, 64\)"):
        check_config(cfg, ("train",))


def test_a_picture_on_its_head_cannot_be_judged_by_its_size(tmp_path):
    cfg = coco_config(tmp_path, [STORED] * 2, [3, 1])
    (note,) = warnings(cfg)
    assert "1 images are turned over or mirrored" in note and f"color_type={UNTURNED}" in note
    cfg.train_dataloader.dataset.pipeline[0].color_type = UNTURNED
    assert warnings(cfg) == []


def test_pictures_on_a_side_that_fit_vouch_for_those_on_their_head(tmp_path):
    assert warnings(coco_config(tmp_path, [STORED, SHOWN], [3, 6])) == []


@pytest.mark.parametrize(
    ("loading", "words"),
    [
        ({}, "divided by 256"),
        (dict(imdecode_backend="pillow"), "cut at 255"),
        (dict(color_type="unchanged"), None),
    ],
)
def test_sixteen_bits_that_become_eight_are_told(tmp_path, loading, words):
    cfg = coco_config(tmp_path, [STORED], [1], **loading)
    Image.fromarray(np.full(STORED, 3000, np.uint16)).save(tmp_path / "images" / "1.png")
    text = (tmp_path / "train.json").read_text().replace("1.jpg", "1.png")
    (tmp_path / "train.json").write_text(text)
    found = warnings(cfg)
    assert words in found[0] if words else found == []


@pytest.mark.parametrize("orientation", [3, 6])
def test_init_config_for_photos_labelled_as_stored(tmp_path, orientation):
    """By the sizes of those on a side, by the colours of those on their head."""
    semantic_config(tmp_path, orientation, corner())
    options = Options(out=tmp_path / "own.py", preset="small")
    folders = [str(tmp_path / "labels")], [str(tmp_path / "images")]
    written = init_segmentation(*folders, ("ground", "cat"), options)
    assert any(f"color_type={UNTURNED}" in note for note in written.notes)
    cfg = Config.fromfile(tmp_path / "own.py")
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        assert pipeline[0] == dict(type="LoadImageFromFile", color_type=UNTURNED)


@pytest.mark.parametrize(
    ("size", "box", "color_type"),
    [(STORED, (3, 4, 20, 30), UNTURNED), (SHOWN, (3, 4, 20, 30), None)],
    ids=["stored", "displayed"],
)
def test_init_config_for_photos_annotated_with_boxes(tmp_path, size, box, color_type):
    coco_config(tmp_path, [size] * 4, [6] * 4, box)
    options = Options(out=tmp_path / "own.py", preset="small")
    written = init_detection([str(tmp_path / "train.json")], [str(tmp_path / "images")], options)
    assert sum("EXIF" in note for note in written.notes) == (color_type is not None)
    cfg = Config.fromfile(tmp_path / "own.py")
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        assert pipeline[0].get("color_type") == color_type


def test_init_config_leaves_sizes_that_are_wrong_to_the_check(tmp_path):
    coco_config(tmp_path, [STORED] * 4, [6] * 4, box=(3, 4, 20, 71))
    options = Options(out=tmp_path / "own.py", preset="small")
    with pytest.raises(DatasetError, match="boxes reach beyond the listed sizes"):
        init_detection([str(tmp_path / "train.json")], [str(tmp_path / "images")], options)


def test_what_sizes_tell(tmp_path):
    for index, orientation in enumerate((1, 3, 6, 6, 6)):
        save(tmp_path / f"{index}.jpg", orientation)
    paths = [str(tmp_path / f"{index}.jpg") for index in range(5)]
    sizes = dict(zip(paths, [STORED, STORED, SHOWN, STORED, (1, 2)], strict=True))
    assert compare_sizes(Reader(), sizes) == Sizes(
        different=[paths[4]], turned=[paths[3]], confirmed=1, unsure=[paths[1]]
    )
    assert notes_against_turning(sizes) == notes_against_turning({paths[2]: SHOWN}) == []
    (why,) = notes_against_turning({paths[3]: STORED, paths[4]: STORED, paths[0]: STORED})
    assert "2 of the images" in why and UNTURNED in why


def test_share_of_the_variance_between_labels():
    """Two labels of means 0 and 4 and deviation 1 each: 4 of 5."""
    image = np.array([[-1.0, 1, 3, 5]])[..., None]
    assert explained_share(image, np.array([[7, 7, 2, 2]])) == pytest.approx(0.8)
    assert explained_share(image, np.array([[7, 2, 2, 7]])) == 0
    assert explained_share(image * 0, np.array([[7, 2, 2, 7]])) == 0


def corner() -> np.ndarray:
    labels = np.zeros(STORED, np.uint8)
    labels[4:20, 6:30] = 1
    return labels


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_colours_tell_which_orientation_labels_were_drawn_in(tmp_path, orientation):
    paths = [str(tmp_path / f"{index}.jpg") for index in range(4)]
    for path in paths:
        save(path, orientation, corner())
    shown = {2: corner()[:, ::-1], 3: corner()[::-1, ::-1], 4: corner()[::-1]}[orientation]
    assert not fits_better_turned(Reader(), dict.fromkeys(paths, shown))
    assert fits_better_turned(Reader(), dict.fromkeys(paths, corner()))
    assert not fits_better_turned(Reader(), dict.fromkeys(paths[:2], corner()))
    unturned = Reader(dict(type="LoadImageFromFile", color_type=UNTURNED))
    assert fits_better_turned(unturned, dict.fromkeys(paths, shown))


def semantic_config(root, orientation, labels) -> Config:
    (root / "images").mkdir()
    (root / "labels").mkdir()
    for index in range(4):
        save(root / "images" / f"{index}.jpg", orientation, corner())
        Image.fromarray(np.ascontiguousarray(labels)).save(root / "labels" / f"{index}.png")
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(root),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=("ground", "cat")),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
    )
    return Config(dict(default_scope="mmseg", train_dataloader=dict(dataset=dataset)))


@pytest.mark.parametrize(("orientation", "turn"), [(6, -1), (8, 1), (3, 2)])
def test_label_maps_of_the_picture_as_displayed_are_right(tmp_path, orientation, turn):
    cfg = semantic_config(tmp_path, orientation, np.rot90(corner(), turn))
    found = warnings(cfg)
    assert all("turned over or mirrored" in note for note in found)
    assert len(found) == (orientation == 3)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_label_maps_of_the_stored_pixels_are_refused_with_what_serves(tmp_path, orientation):
    cfg = semantic_config(tmp_path, orientation, corner())
    option = f"train_dataloader.dataset.pipeline.0.color_type={UNTURNED}"
    with pytest.raises(DatasetError, match=f"--cfg-options {option}$"):
        check_config(cfg, ("train",))
    cfg.train_dataloader.dataset.pipeline[0].color_type = UNTURNED
    assert warnings(cfg) == []
