"""Writes the built-in data to disk: COCO's annotations of objects and of segments, label maps.

`<root>/<preset>/` holds

    train/000000.png ...                   images
    annotations/instances_train.json       COCO annotations, masks as compressed run lengths
    semantic/train/000000.png ...          label maps: 0 background, 1 + class elsewhere
    annotations/panoptic_train.json        COCO's panoptic annotations; the background is stuff
    panoptic/train/000000.png ...          their maps of segments
    meta.json                              version and settings of the data

and the same for `val`. It is drawn in `<root>/.<preset>.partial/` and takes its name when it is
whole.
"""

import fcntl
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from swin_mm.datasets.panoptic import to_png, to_segments_info
from swin_mm.datasets.progress import show_progress
from swin_mm.datasets.shapes.presets import CLASSES, PRESETS, SEMANTIC_CLASSES, Preset, get_preset
from swin_mm.datasets.shapes.scene import Scene, draw_scene
from swin_mm.structures import Segments

# Raised whenever the pixels or annotations of any seed change, so that old drawings are replaced.
VERSION = 3
SPLITS = ("train", "val")
KINDS = ("instances", "panoptic")
# Validation seeds start where no number of training images reaches.
FIRST_SEED = {"train": 0, "val": 1_000_000_000}
OWN_FILES = re.compile(
    r"meta\.json|\.lock|((semantic|panoptic)/)?(train|val)/\d+\.png"
    r"|annotations/(instances|panoptic)_(train|val)\.json"
)


def write_shapes(root: str | Path = "data/shapes", preset: str = "standard") -> Path:
    """Draws a preset under `root/preset`, unless it is there already, whole and of this version.

    Data of another version, or with files missing, is drawn again. Safe when several processes
    start together: one draws, the others wait for it.

    Args:
        root: Folder of all presets; made if absent.
        preset: A name in `PRESETS`.

    Returns:
        The folder of the preset.

    Raises:
        ValueError: Unknown preset, or a folder to be drawn again holds files of other origin.
    """
    settings = get_preset(preset)
    folder = Path(root) / preset
    if is_complete(folder, settings):
        return folder
    Path(root).mkdir(parents=True, exist_ok=True)
    with (Path(root) / f".{preset}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file closes, also if we are killed
        if not is_complete(folder, settings):  # another process may have drawn it meanwhile
            _require_own_files(folder)
            partial = Path(root) / f".{preset}.partial"
            _draw(partial, preset, settings, folder)
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)
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
    """Returns whether `folder` holds every file of this version of the preset; reads no image."""
    files = {f"annotations/{kind}_{split}.json" for kind in KINDS for split in SPLITS}
    for split in SPLITS:
        names = [_file_name(index) for index in range(getattr(preset, split))]
        places = ("", "semantic/", "panoptic/")
        files |= {f"{place}{split}/{name}" for place in places for name in names}
    return _read_meta(folder) == _make_meta(preset) and files <= _list(folder)


def _make_meta(preset: Preset) -> dict:
    """Version and settings as they read back from JSON, where tuples are lists."""
    return json.loads(json.dumps({"version": VERSION, "preset": asdict(preset)}))


def _read_meta(folder: Path) -> dict:
    try:
        return json.loads((folder / "meta.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _list(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _require_own_files(folder: Path) -> None:
    """Raises a `ValueError` where drawing a folder again would delete what was not drawn."""
    for name in sorted(_list(folder)):
        if not OWN_FILES.fullmatch(name):
            raise ValueError(
                f"{folder} is not the shapes data of this version (version {VERSION}; it may be "
                f"older, or files are missing) and must be drawn again, but holds {name}, which is "
                f"not part of the data: move that file elsewhere, or rename {folder}"
            )


def _draw(partial: Path, preset_name: str, preset: Preset, folder: Path) -> None:
    total = preset.train + preset.val
    old = f", replacing version {_read_meta(folder).get('version', '?')}" * folder.exists()
    what = f"the shapes data, preset {preset_name}: {total} images in {folder}{old}"
    print_log(f"Drawing {what}", "current")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    (partial / "annotations").mkdir(parents=True)
    (partial / "meta.json").write_text(json.dumps(_make_meta(preset)))
    with show_progress("Drawing shapes", total) as advance:
        for split in SPLITS:
            instances, panoptic = start_annotations()
            for place in ("", "semantic", "panoptic"):
                (partial / place / split).mkdir(parents=True)
            for index in range(getattr(preset, split)):
                scene, name = draw_scene(FIRST_SEED[split] + index, preset_name), _file_name(index)
                add_scene(instances, scene, name)
                segments = add_segments(panoptic, scene, name)
                _write_png(partial / split / name, scene.image[..., ::-1])
                _write_png(partial / "semantic" / split / name, scene.label_map())
                _write_png(partial / "panoptic" / split / name, to_png(segments)[..., ::-1])
                advance(1)
            for kind, content in zip(KINDS, (instances, panoptic), strict=True):
                file = partial / "annotations" / f"{kind}_{split}.json"
                file.write_text(json.dumps(content))


def start_annotations() -> tuple[dict, dict]:
    """COCO's annotations of objects and of segments, of no image yet."""
    things = [{"id": i + 1, "name": label} for i, label in enumerate(CLASSES)]
    stuff = {"id": len(CLASSES) + 1, "name": SEMANTIC_CLASSES[0], "isthing": 0}
    kinds = [*({**thing, "isthing": 1} for thing in things), stuff]
    images: list[dict] = []  # of both
    return (
        {"images": images, "annotations": [], "categories": things},
        {"images": images, "annotations": [], "categories": kinds},
    )


def add_scene(coco: dict, scene: Scene, file_name: str) -> None:
    """Appends a scene to a COCO annotation dictionary; ids start at one.

    Masks are compressed run lengths: exact, also for rings and for shapes in several pieces.
    """
    height, width = scene.image.shape[:2]
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


def add_segments(panoptic: dict, scene: Scene, file_name: str) -> Segments:
    """Appends a scene, which `add_scene` has numbered; returns its shapes, then the background."""
    count = len(scene.classes)
    ids = (scene.masks * np.arange(1, count + 1)[:, None, None]).sum(0).astype(np.int32)  # (H, W)
    ids[ids == 0] = count + 1
    segments = Segments(ids, np.append(scene.classes, len(CLASSES)))
    panoptic["annotations"].append(
        {
            "image_id": len(panoptic["images"]),
            "file_name": file_name,
            "segments_info": to_segments_info(segments),
        }
    )
    return segments


def _file_name(index: int) -> str:
    return f"{index:06d}.png"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 4]):
        raise OSError(f"cannot write {path}")
