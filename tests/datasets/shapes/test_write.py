import hashlib
import json
import multiprocessing
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from swin_mm.datasets.shapes import CLASSES, PRESETS, draw_scene, ensure_shapes, write_shapes
from swin_mm.datasets.shapes import write as write_module
from swin_mm.datasets.shapes.write import FIRST_SEED


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """The tiny preset, drawn once; tests that change files copy it."""
    return write_shapes(tmp_path_factory.mktemp("shapes"), "tiny")


@pytest.fixture
def copy(drawn, tmp_path) -> Path:
    return Path(shutil.copytree(drawn, tmp_path / "tiny"))


def fingerprint(folder: Path) -> dict[str, str]:
    """Digests of all data files, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_files_hold_the_scenes(drawn, split):
    coco = COCO(drawn / "annotations" / f"instances_{split}.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert 0 not in coco.anns  # pycocotools takes 0 for "no match"
    images = coco.loadImgs(sorted(coco.imgs))
    assert len(images) == getattr(PRESETS["tiny"], split)
    for index, image in enumerate(images):
        scene = draw_scene(FIRST_SEED[split] + index, "tiny")
        pixels = cv2.imread(str(drawn / split / image["file_name"]), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(pixels[..., ::-1], scene.image)
        assert (image["height"], image["width"]) == scene.image.shape[:2]
        labels = cv2.imread(
            str(drawn / "semantic" / split / image["file_name"]), cv2.IMREAD_UNCHANGED
        )
        np.testing.assert_array_equal(labels, scene.label_map())

        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(scene.classes)
        for annotation, mask, label, box in zip(
            annotations, scene.masks, scene.classes, scene.boxes(), strict=True
        ):
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert annotation["category_id"] == 1 + label
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
            left, top, width, height = annotation["bbox"]
            assert [left, top, left + width, top + height] == box.tolist()


@pytest.mark.parametrize("split", ["train", "val"])
def test_segments_are_the_shapes_and_the_background(drawn, split):
    content = json.loads((drawn / "annotations" / f"panoptic_{split}.json").read_text())
    names = {c["id"]: (c["name"], c["isthing"]) for c in content["categories"]}
    assert names == {**{i + 1: (n, 1) for i, n in enumerate(CLASSES)}, 7: ("background", 0)}
    assert len(content["annotations"]) == getattr(PRESETS["tiny"], split)
    for index, (image, entry) in enumerate(
        zip(content["images"], content["annotations"], strict=True)
    ):
        scene = draw_scene(FIRST_SEED[split] + index, "tiny")
        assert (entry["image_id"], entry["file_name"]) == (image["id"], image["file_name"])
        colours = cv2.imread(str(drawn / "panoptic" / split / entry["file_name"]))  # BGR
        ids = colours.astype(int) @ [65536, 256, 1]
        *shapes, background = entry["segments_info"]
        assert [s["category_id"] for s in shapes] == (1 + scene.classes).tolist()
        for segment, mask in zip(shapes, scene.masks, strict=True):
            np.testing.assert_array_equal(ids == segment["id"], mask)
            assert segment["area"] == mask.sum()
        assert background["category_id"] == 7
        np.testing.assert_array_equal(ids == background["id"], ~scene.masks.any(0))


def test_data_is_the_same_wherever_it_is_drawn(drawn, tmp_path):
    assert fingerprint(write_shapes(tmp_path, "tiny")) == fingerprint(drawn)


def test_meta_has_version_and_settings(drawn):
    meta = json.loads((drawn / "meta.json").read_text())
    assert meta["version"] == write_module.VERSION
    assert meta["preset"]["train"] == 12 and meta["preset"]["sides"] == [80, 96]


@pytest.mark.parametrize("preset", PRESETS)
def test_splits_share_no_image(preset):
    """Seeds are disjoint whatever the counts, and so are the pictures drawn from them."""
    counts = PRESETS[preset]
    assert FIRST_SEED["train"] + counts.train <= FIRST_SEED["val"]
    digests = [
        hashlib.sha256(draw_scene(FIRST_SEED[split] + index, preset).image.tobytes()).digest()
        for split in ("train", "val")
        for index in range(2 if preset == "large" else 15)
    ]
    assert len(set(digests)) == len(digests)


def test_complete_data_is_left_alone(copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert write_shapes(copy.parent, "tiny") == copy
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def spoil_meta(folder: Path) -> None:
    (folder / "meta.json").unlink()


def spoil_version(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 0}))
    (folder / "train" / "000012.png").write_bytes(b"of an older version with more images")


def spoil_half_meta(folder: Path) -> None:
    text = (folder / "meta.json").read_text()
    (folder / "meta.json").write_text(text[: len(text) // 2])


def spoil_image(folder: Path) -> None:
    (folder / "train" / "000003.png").unlink()


def spoil_label_maps(folder: Path) -> None:
    shutil.rmtree(folder / "semantic")


def spoil_segments(folder: Path) -> None:
    shutil.rmtree(folder / "panoptic")
    for split in ("train", "val"):
        (folder / "annotations" / f"panoptic_{split}.json").unlink()


def spoil_annotations(folder: Path) -> None:
    (folder / "annotations" / "instances_val.json").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_meta,
        spoil_version,
        spoil_half_meta,
        spoil_image,
        spoil_label_maps,
        spoil_segments,
        spoil_annotations,
    ],
)
def test_incomplete_data_is_completed(drawn, copy, spoil):
    spoil(copy)
    write_shapes(copy.parent, "tiny")
    assert fingerprint(copy) == fingerprint(drawn)


@pytest.mark.parametrize("name", ["train/notes.txt", "mine.json", "annotations/own.json"])
def test_files_of_others_are_never_deleted(copy, name):
    (copy / name).write_text("mine")
    write_shapes(copy.parent, "tiny")  # whole: nothing to do
    spoil_meta(copy)
    with pytest.raises(ValueError, match=f"holds {name}, which is not part of the data: move"):
        write_shapes(copy.parent, "tiny")
    assert (copy / name).read_text() == "mine" and (copy / "train" / "000000.png").exists()


@pytest.mark.parametrize("start", ["nothing", "incomplete"])
def test_a_failed_run_leaves_nothing_half_done(drawn, copy, monkeypatch, start):
    """What was there stays as it was, and the next run draws it anew."""
    if start == "nothing":
        shutil.rmtree(copy)
    else:
        spoil_image(copy)
    before = fingerprint(copy)
    with monkeypatch.context() as patched:
        patched.setattr(write_module, "add_segments", lambda *_: 1 / 0)  # amid the first image
        with pytest.raises(ZeroDivisionError):
            write_shapes(copy.parent, "tiny")
    assert fingerprint(copy) == before
    assert fingerprint(write_shapes(copy.parent, "tiny")) == fingerprint(drawn)
    assert not (copy.parent / ".tiny.partial").exists()


def count_drawings(root: Path, drawings) -> None:
    """Runs in another process: adds one to the counter for every image drawn."""
    draw = write_module.draw_scene

    def draw_and_count(*args):
        with drawings.get_lock():
            drawings.value += 1
        time.sleep(0.01)
        return draw(*args)

    write_module.draw_scene = draw_and_count
    write_shapes(root, "tiny")


def test_of_processes_started_together_one_draws(drawn, tmp_path):
    context = multiprocessing.get_context("fork")
    drawings = context.Value("i", 0)
    processes = [
        context.Process(target=count_drawings, args=(tmp_path, drawings)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert drawings.value == 12 + 6
    assert fingerprint(tmp_path / "tiny") == fingerprint(drawn)


def test_ensure_takes_the_preset_from_the_folder(tmp_path):
    ensure_shapes(f"{tmp_path}/tiny/")
    assert (tmp_path / "tiny" / "meta.json").exists()


def test_ensure_refuses_other_folders(tmp_path):
    with pytest.raises(
        ValueError, match="must end in the name of a preset: standard, easy, large, tiny"
    ):
        ensure_shapes(tmp_path / "shapes")


def test_unknown_preset_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got 'huge'"):
        write_shapes(tmp_path, "huge")
    assert list(tmp_path.iterdir()) == []
