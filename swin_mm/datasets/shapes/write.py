"""Writes the built-in data to disk, as COCO annotations and as semantic label maps.

`<root>/<preset>/` holds

    train/000000.png ...                   images
    annotations/instances_train.json       COCO annotations, masks as compressed run lengths
    semantic/train/000000.png ...          label maps: 0 background, 1 + class elsewhere
    meta.json                              written last: without it the drawing is not complete

and the same for `val`.
"""

import fcntl
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.progress import Progress

from swin_mm.datasets.shapes.presets import CLASSES, PRESETS, Preset, get_preset
from swin_mm.datasets.shapes.scene import Scene, draw_scene

# Raised whenever the pixels or annotations of any seed change, so that old drawings are replaced.
VERSION = 2
SPLITS = ("train", "val")
# Validation seeds start where no number of training images reaches.
FIRST_SEED = {"train": 0, "val": 1_000_000_000}


def write_shapes(root: str | Path = "data/shapes", preset: str = "standard") -> Path:
    """Draws a preset under `root/preset`, unless it is there already, whole and of this version.

    Safe when several processes start together: one draws, the others wait for it.

    Args:
        root: Folder of all presets; made if absent.
        preset: A name in `PRESETS`.

    Returns:
        The folder of the preset.

    Raises:
        ValueError: Unknown preset.
    """
    settings = get_preset(preset)
    folder = Path(root) / preset
    if is_complete(folder, settings):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if not is_complete(folder, settings):  # another process may have drawn it meanwhile
            _write(folder, preset, settings)
    return folder


def ensure_shapes(data_root: str | Path) -> None:
    """Draws the preset that a config's `data_root`, such as `data/shapes/easy/`, names last.

    Raises:
        ValueError: The last folder is not the name of a preset.
    """
    folder = Path(data_root)
    if folder.name not in PRESETS:
        raise ValueError(
            f"data_root={str(data_root)!r} of the built-in shapes data must end in the name of a "
            f"preset: {', '.join(PRESETS)}; for instance data/shapes/standard/"
        )
    write_shapes(folder.parent, folder.name)


def is_complete(folder: Path, preset: Preset) -> bool:
    """Tells whether `folder` holds every file of this version of the preset; reads no image."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return (
        meta.get("version") == VERSION
        and meta.get("preset") == _as_json(preset)
        and all(_has_files(folder, split, getattr(preset, split)) for split in SPLITS)
    )


def _as_json(preset: Preset) -> dict:
    """Returns the preset as it reads back from JSON, where tuples are lists."""
    return json.loads(json.dumps(asdict(preset)))


def _has_files(folder: Path, split: str, count: int) -> bool:
    """Tells whether annotations, images and label maps are there, and no image too many."""
    names = {_file_name(index) for index in range(count)}
    folders = (folder / split, folder / "semantic" / split)
    return (folder / "annotations" / f"instances_{split}.json").is_file() and all(
        images.is_dir() and names == {path.name for path in images.glob("*.png")}
        for images in folders
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also if we are killed
        yield


def _write(folder: Path, name: str, preset: Preset) -> None:
    total = preset.train + preset.val
    print_log(f"Drawing the shapes data, preset {name}: {total} images in {folder}", "current")
    (folder / "meta.json").unlink(missing_ok=True)
    digest = hashlib.sha256()
    instances = {}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("Drawing shapes", total=total)
        for split in SPLITS:
            coco = _write_split(folder, split, name, preset, digest, lambda: progress.advance(task))
            instances[split] = len(coco["annotations"])
    meta = {
        "version": VERSION,
        "preset": _as_json(preset),
        "images": {split: getattr(preset, split) for split in SPLITS},
        "instances": instances,
        "sha256": digest.hexdigest(),
    }
    _write_json(folder / "meta.json", meta)


def _write_split(folder: Path, split: str, name: str, preset: Preset, digest, advance) -> dict:
    images, labels = folder / split, folder / "semantic" / split
    count = getattr(preset, split)
    names = {_file_name(index) for index in range(count)}
    for target in (images, labels):
        target.mkdir(parents=True, exist_ok=True)
        for path in target.glob("[0-9]*.png"):
            if path.name not in names:  # of an earlier version with more images
                path.unlink()

    coco = {
        "info": {"description": f"swin_mm shapes, preset {name}", "version": str(VERSION)},
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": label} for i, label in enumerate(CLASSES)],
    }
    for index in range(count):
        scene = draw_scene(FIRST_SEED[split] + index, name)
        add_scene(coco, scene, _file_name(index))
        digest.update(scene.image.tobytes() + scene.label_map().tobytes())
        _write_png(images / _file_name(index), scene.image[..., ::-1])  # OpenCV wants BGR
        _write_png(labels / _file_name(index), scene.label_map())
        advance()
    digest.update(_dump(coco))
    (folder / "annotations").mkdir(exist_ok=True)
    _write_json(folder / "annotations" / f"instances_{split}.json", coco)
    return coco


def add_scene(coco: dict, scene: Scene, file_name: str) -> None:
    """Appends a scene to a COCO annotation dictionary.

    Masks are compressed run lengths: exact, also for rings and for shapes cut in pieces by others.
    """
    height, width = scene.image.shape[:2]
    # Ids start at one: pycocotools takes annotation id 0 for "no match".
    image_id = len(coco["images"]) + 1
    coco["images"].append(
        {"id": image_id, "file_name": file_name, "height": height, "width": width}
    )
    for mask, label, box in zip(scene.masks, scene.classes, scene.boxes(), strict=True):
        runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        left, top, right, bottom = box.tolist()
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": [height, width], "counts": runs["counts"].decode()},
            }
        )


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 4]):
        raise OSError(f"cannot write {path}: is the disk full?")


def _dump(content: dict) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _write_json(path: Path, content: dict) -> None:
    """Writes a file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(_dump(content))
    partial.replace(path)
