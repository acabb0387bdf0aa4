"""Data sets read the same from tar archives as from files."""

import json
import os
import tarfile
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine import fileio
from mmengine.dataset import pseudo_collate
from mmseg.datasets import BaseSegDataset
from torch.utils.data import DataLoader

from swin_mm.datasets import tar_files

LOAD = dict(type="LoadImageFromFile", backend_args=None)


@pytest.fixture(autouse=True)
def forget():
    """Archives of other tests have the same names in other folders."""
    yield
    tar_files.find_members.cache_clear()


@pytest.fixture
def images(tmp_path):
    """Six images and label maps in folders; beside them `images.tar` and `shard-*.tar`."""
    draw = np.random.default_rng(0)
    for folder, channels in (("images", 3), ("maps", 1)):
        (tmp_path / folder / "deep").mkdir(parents=True)
        for number in range(6):
            name = f"{'deep/' * (number % 2)}{number}.png"
            pixels = draw.integers(0, 3, (9, 11, channels), np.uint8)
            cv2.imwrite(str(tmp_path / folder / name), pixels)
        (tmp_path / folder / "._0.png").write_bytes(b"what macOS adds to archives")
        with tarfile.open(tmp_path / f"{folder}.tar", "w") as tar:
            tar.add(tmp_path / folder, ".")
        files = sorted((tmp_path / folder).rglob("*.png"))
        for shard in range(2):
            with tarfile.open(tmp_path / f"{folder}-{shard}.tar", "w") as tar:
                for file in files[shard::2]:
                    tar.add(file, str(file.relative_to(tmp_path / folder)))
    return tmp_path


def read(dataset):
    """All samples, by two workers, without what tells where they come from."""
    loader = DataLoader(dataset, num_workers=2, collate_fn=pseudo_collate)
    return [
        {key: value[0].tolist() for key, value in batch.items() if isinstance(value[0], np.ndarray)}
        for batch in loader
    ]


@pytest.mark.parametrize("archive", ["images.tar", "images-*.tar"])
def test_coco(images, archive):
    names = [f"{'deep/' * (number % 2)}{number}.png" for number in range(6)]
    size = dict(height=9, width=11)
    box = dict(bbox=[1, 1, 5, 5], area=25, iscrowd=0, category_id=1)
    content = dict(
        images=[dict(id=i, file_name=name, **size) for i, name in enumerate(names)],
        annotations=[dict(id=i + 1, image_id=i, **box) for i in range(6)],
        categories=[dict(id=1, name="a")],
    )
    (images / "coco.json").write_text(json.dumps(content))

    def build(root, folder):
        return CocoDataset(
            data_root=root,
            ann_file="coco.json",
            data_prefix=dict(img=folder),
            metainfo=dict(classes=("a",)),
            pipeline=[LOAD],
        )

    from_files = read(build(f"{images}/", "images/"))
    assert len(from_files) == 6 and "img" in from_files[0]
    assert read(build(f"tar://{images}/", f"{archive}/")) == from_files


@pytest.mark.parametrize("suffix", [".tar", "-*.tar"])
def test_label_maps(images, suffix):
    def build(root, end):
        return BaseSegDataset(
            data_root=root,
            data_prefix=dict(img_path=f"images{end}", seg_map_path=f"maps{end}"),
            img_suffix=".png",
            metainfo=dict(classes=("a", "b", "c")),
            pipeline=[LOAD, dict(type="mmseg.LoadAnnotations")],
        )

    from_files = read(build(str(images), ""))
    assert len(from_files) == 6 and {"img", "gt_seg_map"} <= from_files[0].keys()
    assert read(build(f"tar://{images}", suffix)) == from_files


def test_folders_of_an_archive_are_listed_as_folders(images):
    for options in (
        dict(),
        dict(recursive=True),
        dict(list_dir=False, suffix=".png"),
        dict(list_dir=False, suffix=("a", ".png"), recursive=True),
        dict(list_file=False),
    ):
        wanted = sorted(fileio.list_dir_or_file(str(images / "images"), **options))
        found = fileio.list_dir_or_file(f"tar://{images}/images.tar", **options)
        assert sorted(found) == wanted, options
    deep = f"tar://{images}/images.tar/deep"
    assert sorted(fileio.list_dir_or_file(deep)) == ["1.png", "3.png", "5.png"]
    assert fileio.isdir(deep) and not fileio.isfile(deep)
    assert fileio.get(f"{images}/images/._0.png") == fileio.get(
        f"tar://{images}/images.tar/._0.png"
    )
    assert fileio.isfile(f"{deep}/1.png") and not fileio.exists(f"{deep}/2.png")


def test_an_address(images):
    with fsspec.open("memory://bucket/images.tar", "wb") as file:
        file.write((images / "images.tar").read_bytes())
    backend = dict(backend_args=dict(backend="swin_mm_tar"))
    path = "memory://bucket/images.tar/deep/3.png"
    content = (images / "images" / "deep" / "3.png").read_bytes()
    assert fileio.get(path, **backend) == content
    with fileio.get_local_path(path, **backend) as local:
        assert Path(local).read_bytes() == content
    assert not os.path.exists(local)


def test_an_index_is_used_until_the_archive_changes(images, monkeypatch):
    path = f"tar://{images}/images.tar/0.png"
    first = fileio.get(path)
    tar_files.find_members.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tar_files, "_scan", None)  # an error, were it called
        assert fileio.get(path) == first
    with tarfile.open(images / "images.tar", "w") as tar:
        tar.add(images / "images" / "2.png", "0.png")
    tar_files.find_members.cache_clear()
    tar_files._open.cache_clear()
    assert fileio.get(path) == (images / "images" / "2.png").read_bytes()


def test_an_archive_is_looked_at_once(images, monkeypatch):
    """On a network disk that is as slow as opening a file."""
    fileio.get(f"tar://{images}/images.tar/0.png")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", None)  # an error, were it called
        content = fileio.get(f"tar://{images}/images.tar/2.png")
    assert content == (images / "images" / "2.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "make", "error", "message"),
    [
        ("absent.tar/a.png", None, FileNotFoundError, "there is no archive .*absent.tar"),
        ("images.tar/a.png", None, FileNotFoundError, "images.tar has no file a.png"),
        ("new.tar/a.png", b"\x1f\x8b", ValueError, "no whole, uncompressed tar archive"),
        ("images*.tar/0.png", None, ValueError, "0.png is in .*images-0.tar and in .*images.tar"),
    ],
    ids=["no archive", "no file", "compressed", "twice"],
)
def test_errors_name_the_archive(images, name, make, error, message):
    if make:
        (images / "new.tar").write_bytes(make * 600)
    with pytest.raises(error, match=message):
        fileio.get(f"tar://{images}/{name}")


@pytest.mark.parametrize("size", [2000, 2048, 2560, 3000])
def test_a_truncated_archive_is_refused(images, size):
    archive = images / "images.tar"
    archive.write_bytes(archive.read_bytes()[:size])
    with pytest.raises(ValueError, match="images.tar is no whole, uncompressed tar archive"):
        fileio.get(f"tar://{archive}/0.png")
