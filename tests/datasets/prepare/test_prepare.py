"""Whole data sets from a local server: what is fetched, skipped, refused, and told."""

import hashlib
import io
import os
import shutil
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.config import Config

from swin_mm.datasets.prepare import (
    DATA_SETS,
    Archive,
    PrepareError,
    PublicData,
    prepare_dataset,
)


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, f"content of {name}")
    return buffer.getvalue()


IMAGES = zipped("train/1.jpg", "train/2.jpg", "val/3.jpg")
LABELS = zipped("labels/train.json")
MAPS = zipped("train/1.png")


@pytest.fixture
def recipe(server, tmp_path) -> PublicData:
    """Images with a checksum, labels without, and maps that are fetched if asked for."""
    server.files = {"images.zip": IMAGES, "labels.zip": LABELS, "maps.zip": MAPS}
    return PublicData(
        title="made up",
        folder=str(tmp_path / "data"),
        home="http://localhost",
        archives=(
            Archive(
                "images.zip",
                url=f"{server.url}/images.zip",
                checksum=f"sha1:{hashlib.sha1(IMAGES).hexdigest()}",
                contents={"train/*.jpg": 2, "val/*.jpg": 1},
            ),
            Archive(
                "labels.zip",
                url=f"{server.url}/labels.zip",
                contents={"labels/train.json": 1},
            ),
            Archive(
                "maps.zip",
                url=f"{server.url}/maps.zip",
                contents={"maps/train/*.png": 1},
                part="maps",
                into="maps",
            ),
        ),
    )


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def refuse(recipe: PublicData, *words: str, **options) -> None:
    with pytest.raises(PrepareError) as error:
        prepare_dataset(recipe, **options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


UNPACKED = ["labels/train.json", "train/1.jpg", "train/2.jpg", "val/3.jpg"]


def test_puts_everything_in_place(recipe, server, tmp_path):
    lines = []
    folder = prepare_dataset(recipe, log=lines.append)
    assert folder == tmp_path / "data"
    assert files(folder) == ["downloads/images.zip", "downloads/labels.zip", *UNPACKED]
    assert lines == [
        f"images.zip: fetching from {server.url}/images.zip",
        f"images.zip: unpacking to {folder}",
        f"labels.zip: fetching from {server.url}/labels.zip",
        f"labels.zip: unpacking to {folder}",
    ]


def test_what_is_there_is_left_alone(recipe, server, tmp_path):
    folder = prepare_dataset(recipe)
    (folder / "train" / "1.jpg").write_text("mine")
    shutil.rmtree(folder / "labels")
    shutil.rmtree(folder / "downloads")
    server.requests.clear()
    lines = []
    prepare_dataset(recipe, log=lines.append)
    assert len(server.requests) == 1 and (folder / "labels" / "train.json").exists()
    assert (folder / "train" / "1.jpg").read_text() == "mine"
    assert lines[0] == f"images.zip: its files are in {folder}"


def test_lost_file_is_unpacked_anew(recipe, server):
    folder = prepare_dataset(recipe)
    (folder / "train" / "2.jpg").unlink()
    server.requests.clear()
    prepare_dataset(recipe)
    assert (folder / "train" / "2.jpg").exists() and not server.requests


def test_parts_on_demand_and_deleting(recipe, server, tmp_path):
    folder = prepare_dataset(recipe, tmp_path / "else", parts=["maps"], delete=True)
    assert files(folder) == sorted([*UNPACKED, "maps/train/1.png"])
    refuse(recipe, "no part mops; there is ['maps']", parts=["mops"])


def test_archives_that_are_there(recipe, server, tmp_path):
    store = tmp_path / "data" / "downloads"
    store.mkdir(parents=True)
    (store / "images.zip").write_bytes(IMAGES)
    folder = prepare_dataset(recipe, delete=True)
    assert server.requests == [None]  # of the labels alone
    assert files(folder) == ["downloads/images.zip", *UNPACKED]  # only what was fetched is deleted


def test_what_was_unpacked_in_part_is_unpacked_anew(recipe, server):
    folder = prepare_dataset(recipe)
    (folder / ".unpacking_images.zip").touch()
    (folder / "val" / "3.jpg").write_text("con")
    prepare_dataset(recipe)
    assert (folder / "val" / "3.jpg").read_text() == "content of val/3.jpg"
    assert not list(folder.glob(".*"))


def test_mirror(recipe, server):
    archives = tuple(replace(a, url="http://127.0.0.1:1/none.zip") for a in recipe.archives)
    folder = prepare_dataset(replace(recipe, archives=archives), mirror=f"{server.url}/")
    assert (folder / "val" / "3.jpg").exists()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_wrong_checksum_is_refused(recipe, server, tmp_path, algorithm):
    digest = hashlib.new(algorithm, IMAGES).hexdigest()
    first = replace(recipe.archives[0], checksum=f"{algorithm}:{digest}")
    recipe = replace(recipe, archives=(first, *recipe.archives[1:]))
    server.files["images.zip"] = IMAGES.replace(b"content of val", b"kontent of val")
    path = tmp_path / "data" / "downloads" / "images.zip"
    words = f"{path} has not the checksum {algorithm}:{digest}: delete it and run this again"
    refuse(recipe, words)
    path.unlink()
    server.files["images.zip"] = IMAGES
    prepare_dataset(recipe)


def test_too_few_files(recipe, server, tmp_path):
    server.files["labels.zip"] = zipped("labels/other.json")
    refuse(recipe, "labels.zip has not the published files (1 labels/train.json): delete it")


def test_login_is_explained_before_anything_is_fetched(recipe, server, tmp_path):
    archives = tuple(replace(a, url=None) if a.checksum else a for a in recipe.archives)
    closed = replace(recipe, archives=archives, login="get {names} to {folder}")
    store = tmp_path / "data" / "downloads"
    refuse(
        closed,
        f"images.zip cannot be fetched without a login, and {store} does not have them: "
        f"get images.zip to {store}, and run this again",
    )
    assert not server.requests
    store.mkdir(parents=True)
    (store / "images.zip").write_bytes(IMAGES)
    assert (prepare_dataset(closed) / "train" / "1.jpg").exists()


@pytest.mark.parametrize("name", DATA_SETS)
def test_table(name):
    """What a wrong letter in the table could break."""
    recipe = DATA_SETS[name]
    names = [archive.name for archive in recipe.archives]
    assert len(set(names)) == len(names)
    for archive in recipe.archives:
        assert archive.contents and all(count > 0 for count in archive.contents.values())
        if archive.url is None:
            assert archive.name in recipe.login.format(folder="x", names=" ".join(names))
        else:
            assert archive.url.rpartition("/")[2] == archive.name
        if archive.checksum:
            algorithm, digest = archive.checksum.split(":")
            assert len(digest) == hashlib.new(algorithm).digest_size * 2
            assert bytes.fromhex(digest)
        prefix = "" if archive.into == "." else f"{archive.into}/"
        assert all(pattern.startswith(prefix) for pattern in archive.contents)


CONFIGS = {
    "coco": "mmdet::_base_/datasets/coco_instance.py",
    "coco panoptic": "mmdet::_base_/datasets/coco_panoptic.py",
    "coco stuff": "mmdet::htc/htc_r50_fpn_1x_coco.py",
    "ade20k": "mmseg::_base_/datasets/ade20k.py",
    "cityscapes": "mmseg::_base_/datasets/cityscapes.py",
    "voc2012": "mmseg::_base_/datasets/pascal_voc12.py",
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_folders_are_those_of_the_configs(name, loader):
    """Every folder that mmdet's or mmseg's config names holds files of the table."""
    scope, path = CONFIGS[name].split("::")
    package = Path(import_module(scope).__file__).parent
    dataset = Config.fromfile(package / ".mim" / "configs" / path)[loader].dataset
    recipe = DATA_SETS[name.split()[0]]
    made = [os.path.join(recipe.folder, p) for a in recipe.archives for p in a.contents]
    for folder in dataset.data_prefix.values():
        wanted = os.path.normpath(os.path.join(dataset.data_root, folder))
        assert any(pattern.startswith(f"{wanted}/") for pattern in made), wanted
    if dataset.get("ann_file", "").endswith(".json"):
        assert os.path.join(dataset.data_root, dataset.ann_file) in made
