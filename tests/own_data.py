"""Small data sets as users have them, for the tests of this folder."""

import json

import cv2
import numpy as np
import tifffile
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

NAMES = ("Größe", 'it\'s "odd", yes', "a{{b}}")


def write_coco(
    folder,
    images=6,
    categories=((3, NAMES[0]), (9, NAMES[1]), (70, NAMES[2])),
    file="train.json",
    image_folder="train",
    size=(64, 96),
    masks=True,
    suffix=".png",
    bands=3,
    names=None,
    **changes,
):
    """Writes images with a bright rectangle of each class, and their annotations.

    Returns:
        The annotations as written; `changes` replace keys of theirs.
    """
    random = np.random.default_rng(images)
    coco = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": number, "name": name} for number, name in categories]
    for index in range(images):
        name = names[index] if names else f"{index:03d}{suffix}"
        path = folder / image_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = random.integers(0, 60, (*size, bands)).astype(np.uint8)
        for place, (number, _) in enumerate(categories):
            left, top, side = 4 + 28 * place, 6 + index, 20
            picture[top : top + side, left : left + side, place % bands] += 150
            corners = [left, top, left + side, top, left + side, top + side, left, top + side]
            coco["annotations"].append(
                dict(
                    id=len(coco["annotations"]) + 1,
                    image_id=index + 1,
                    category_id=number,
                    bbox=[left, top, side, side],
                    area=side * side,
                    iscrowd=0,
                    **(dict(segmentation=[corners]) if masks else {}),
                )
            )
        write_image(path, picture)
        coco["images"].append(dict(id=index + 1, file_name=name, height=size[0], width=size[1]))
    coco.update(changes)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(coco))
    return coco


def build_loader(settings):
    settings = dict(settings, num_workers=0, persistent_workers=False)
    return Runner.build_dataloader(settings, seed=0)


def train_a_step(cfg):
    """Runs a batch of the config's data through its model; returns losses, model and batch."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    batch = next(iter(build_loader(cfg.train_dataloader)))
    data = model.data_preprocessor(batch, training=True)
    loss, values = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert torch.isfinite(loss)
    return values, model, data


def write_image(path, picture):
    """Writes a TIFF with 16 bits a band, or a picture."""
    if path.suffix in (".tif", ".tiff"):
        pixels = picture.astype(np.uint16) * 200  # (H, W, bands), two bands or more
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")
    else:
        cv2.imwrite(str(path), picture)


def write_maps(folder, images=6, split="", values=(0, 1, 2), suffix=".png", bands=3, ending=".png"):
    """Writes images and label maps with the given values, one below the other."""
    random = np.random.default_rng(images)
    for kind in ("img", "lab"):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for index in range(images):
        labels = np.zeros((64, 96), dtype=np.uint8)
        for place, value in enumerate(values):
            labels[64 * place // len(values) :] = value
        picture = random.integers(0, 60, (64, 96, bands)).astype(np.uint8)
        picture += (labels % 100)[..., None]
        write_image(folder / "img" / split / f"{index:03d}{suffix}", picture)
        cv2.imwrite(str(folder / "lab" / split / f"{index:03d}{ending}"), labels)
