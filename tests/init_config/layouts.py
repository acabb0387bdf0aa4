"""Small data sets in the layouts of annotation tools, all of the same images."""

import json

import cv2
import numpy as np
import yaml
from own_data import write_coco
from PIL import Image

NAMES = ("cat", "dog")
CATEGORIES = ((1, "cat"), (2, "dog"))
SPLITS = {"train": 4, "valid": 2}  # images
SIZE = (64, 96)
COLOURS = np.array([[0, 0, 0], [200, 10, 30], [20, 220, 60]], dtype=np.uint8)
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:200,10,30::\ndog:20,220,60::\n"


def objects(index):
    """Class, left, top and side of the squares that `write_coco` draws in an image."""
    return [(place, 4 + 28 * place, 6 + index, 20) for place in range(len(NAMES))]


def write_roboflow(folder):
    """COCO as Roboflow exports it: a file in the folder of each split's images."""
    for split, images in SPLITS.items():
        write_coco(
            folder,
            images=images,
            categories=CATEGORIES,
            file=f"{split}/_annotations.coco.json",
            image_folder=split,
        )


def write_cvat(folder):
    """COCO as CVAT and Label Studio export it: one file for all images."""
    write_coco(
        folder,
        images=6,
        categories=CATEGORIES,
        file="annotations/instances_default.json",
        image_folder="images/default",
    )


def write_yolo(folder, polygons=False):
    """Labels beside `images`, and a `data.yaml` with the paths of another machine."""
    for split, images in SPLITS.items():
        write_coco(folder, images, CATEGORIES, image_folder=f"{split}/images", file="coco.json")
        (folder / split / "labels").mkdir()
        for index in range(images):
            lines = [yolo_line(*thing, polygons) for thing in objects(index)]
            (folder / split / "labels" / f"{index:03d}.txt").write_text("\n".join(lines) + "\n")
    (folder / "coco.json").unlink()
    paths = dict(train="../train/images", val="/content/data/valid/images")
    (folder / "data.yaml").write_text(yaml.safe_dump({**paths, "nc": 2, "names": list(NAMES)}))


def yolo_line(label, left, top, side, polygons):
    height, width = SIZE
    if not polygons:
        x, y = (left + side / 2) / width, (top + side / 2) / height
        return f"{label} {x} {y} {side / width} {side / height}"
    corners = [(left, top), (left + side, top), (left + side, top + side), (left, top + side)]
    return f"{label} " + " ".join(f"{x / width} {y / height}" for x, y in corners)


def write_yolo_polygons(folder):
    write_yolo(folder, polygons=True)


def write_voc(folder):
    """Pascal VOC with lists of the images of each split."""
    write_coco(folder, 6, CATEGORIES, image_folder="JPEGImages", suffix=".jpg", file="coco.json")
    (folder / "coco.json").unlink()
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    for index in range(6):
        found = "".join(
            f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{left + side}</xmax>"
            f"<ymax>{top + side}</ymax></bndbox></object>"
            for label, left, top, side in objects(index)
        )
        text = f"<annotation><filename>{index:03d}.jpg</filename>{found}</annotation>"
        (folder / "Annotations" / f"{index:03d}.xml").write_text(text)
    names = [f"{index:03d}\n" for index in range(6)]
    (folder / "ImageSets" / "Main" / "train.txt").write_text("".join(names[:4]))
    (folder / "ImageSets" / "Main" / "val.txt").write_text("".join(names[4:]))


def write_labelme(folder):
    """One JSON file beside each image."""
    write_coco(folder, 6, CATEGORIES, image_folder="", file="coco.json")
    (folder / "coco.json").unlink()
    for index in range(6):
        shapes = [
            dict(
                label=NAMES[label],
                shape_type="polygon",
                group_id=None,
                points=[
                    [left, top],
                    [left + side, top],
                    [left + side, top + side],
                    [left, top + side],
                ],
            )
            for label, left, top, side in objects(index)
        ]
        content = dict(version="5.4.1", imagePath=f"{index:03d}.png", imageData=None, shapes=shapes)
        (folder / f"{index:03d}.json").write_text(json.dumps(content))


def write_masks(folder, kind="indices"):
    """Folders of images and masks: indices of classes, 0 and 255, or colours with their table."""
    for split, images in SPLITS.items():
        write_coco(folder, images, CATEGORIES, image_folder=f"images/{split}", file="coco.json")
        (folder / "masks" / split).mkdir(parents=True)
        for index in range(images):
            mask = np.zeros(SIZE, dtype=np.uint8)
            for label, left, top, side in objects(index):
                mask[top : top + side, left : left + side] = label + 1
            pixels = {"indices": mask, "binary": (mask > 0) * np.uint8(255)}.get(kind)
            pixels = COLOURS[mask] if pixels is None else pixels
            Image.fromarray(pixels).save(folder / "masks" / split / f"{index:03d}.png")
    (folder / "coco.json").unlink()
    if kind == "colours":
        (folder / "labelmap.txt").write_text(LABELMAP)


def write_binary_masks(folder):
    write_masks(folder, "binary")


def write_coloured_masks(folder):
    write_masks(folder, "colours")


def write_as_jpeg(folder):
    """Replaces masks by JPEG files of them."""
    for mask in folder.glob("masks/*/*.png"):
        cv2.imwrite(str(mask.with_suffix(".jpg")), cv2.imread(str(mask)))
        mask.unlink()


LAYOUTS = {
    "roboflow": write_roboflow,
    "cvat": write_cvat,
    "yolo": write_yolo,
    "yolo_polygons": write_yolo_polygons,
    "voc": write_voc,
    "labelme": write_labelme,
    "masks": write_masks,
    "binary_masks": write_binary_masks,
    "coloured_masks": write_coloured_masks,
}
