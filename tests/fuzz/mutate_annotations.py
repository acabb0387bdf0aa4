"""Small data sets, and mutations of their annotation files: as tools and accidents make them."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 32, 40
CLASSES = ("cat", "dog")
IMAGES = 4

ODD = [None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-9, 1e9, 1e12, 1e300, 10**30, 2**31, 2**63]
ODD += [float("nan"), float("inf"), -float("inf"), "", "0", "1", "7", "abc", "1e5", " ", "\0"]
ODD += ["\x1b[31mred", "[/red]", "\ud800", "Größe", "e\u0301", "a\nb", "a/b", "../a", "D:\\a.png"]
ODD += [[], [[]], [[[]]], [None], {}, {"a": 1}, [1, 2, 3, 4], ["a"], [[1, 2]], [float("nan")] * 4]
SECTIONS = ("images", "annotations", "annotations", "annotations", "categories")


def make_images(folder: Path) -> None:
    """Draws the images that all annotation files name."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index}.png")


def make_coco(draw: random.Random) -> dict:
    """Makes sound annotations with masks of each kind."""
    annotations = []
    for index in range(3 * IMAGES):
        left, top = draw.randint(0, WIDTH - 16), draw.randint(0, HEIGHT - 14)
        right, bottom = left + draw.randint(4, 15), top + draw.randint(4, 13)
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
        pixels[top:bottom, left:right] = 1
        runs = coco_mask.encode(pixels)
        crowd = draw.random() < 0.1
        mask = draw.choice(["polygon", "polygon", "text", "list"])
        if mask == "polygon" and not crowd:
            segmentation: object = [[left, top, right, top, right, bottom, left, bottom]]
        elif mask == "list":
            flat = np.concatenate([[0], pixels.ravel(order="F"), [0]])
            edges = np.flatnonzero(np.diff(flat))
            counts = np.diff([0, *edges, HEIGHT * WIDTH]).tolist()
            segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
        else:
            segmentation = {"size": [HEIGHT, WIDTH], "counts": runs["counts"].decode()}
        annotations.append(
            {
                "id": index + 1,
                "image_id": 1 + index % IMAGES,
                "category_id": draw.choice([1, 2]),
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": int(crowd),
                "segmentation": segmentation,
            }
        )
    images = [
        {"id": index + 1, "file_name": f"{index}.png", "height": HEIGHT, "width": WIDTH}
        for index in range(IMAGES)
    ]
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def mutate(coco: dict, draw: random.Random) -> tuple[bytes, list[str]]:
    """Changes annotations in one to three ways.

    Returns:
        The file's content, and what was done.
    """
    coco = copy.deepcopy(coco)
    # First, as pycocotools decodes sound masks only.
    done = [f"enlarge: {enlarge(coco, draw)}"] if draw.random() < 0.05 else []
    for _ in range(draw.choice([1, 1, 1, 1, 2])):
        change = draw.choice(CHANGES)
        try:
            done.append(f"{change.__name__}: {change(coco, draw)}")
        except (TypeError, KeyError, AttributeError, ValueError, IndexError):
            done.append(f"{change.__name__}: not possible after the others")
    text = json.dumps(coco, ensure_ascii=draw.random() < 0.5)
    content = text.encode("utf-8", "surrogatepass")
    if draw.random() < 0.15:
        spoil = draw.choice(SPOILERS)
        content = spoil(text, draw)
        done.append(spoil.__name__)
    return content, done


def pick(coco: dict, draw: random.Random, section: str | None = None) -> dict:
    return draw.choice(coco[section or draw.choice(SECTIONS)])


def set_value(coco: dict, draw: random.Random) -> str:
    item = pick(coco, draw)
    key = draw.choice([*item, "ignore"])
    item[key] = copy.deepcopy(draw.choice(ODD))
    return f"{key}={item[key]!r}"


def set_in_list(coco: dict, draw: random.Random) -> str:
    box = pick(coco, draw, "annotations")["bbox"]
    box[draw.randrange(len(box))] = draw.choice(ODD)
    return f"bbox={box!r}"


def delete_key(coco: dict, draw: random.Random) -> str:
    section = draw.choice(SECTIONS)
    key = draw.choice([*coco[section][0]])
    items = coco[section] if draw.random() < 0.5 else [pick(coco, draw, section)]
    for item in items:
        item.pop(key, None)
    return f"{key} of {len(items)} {section}"


def repeat_item(coco: dict, draw: random.Random) -> str:
    section = draw.choice(SECTIONS)
    item = copy.deepcopy(pick(coco, draw, section))
    if draw.random() < 0.5:
        item["id"] = draw.choice([max(i["id"] for i in coco[section]) + 1, str(item["id"]), 1.0])
    coco[section].insert(draw.randrange(len(coco[section]) + 1), item)
    return f"{section} {item['id']!r}"


def drop_items(coco: dict, draw: random.Random) -> str:
    section = draw.choice(SECTIONS)
    kept = draw.choice([0, 0, 1, len(coco[section]) - 1])
    draw.shuffle(coco[section])
    del coco[section][kept:]
    return f"{kept} {section} kept"


def change_ids(coco: dict, draw: random.Random) -> str:
    """Gives a section other ids, and usually those who name them."""
    section = draw.choice(SECTIONS)
    form = draw.choice(["str", "float", "bool", "minus", "from 0", "huge", "sparse", "mixed"])
    to: dict[str, Callable] = {
        "str": str,
        "float": float,
        "bool": bool,
        "minus": lambda i: -i,
        "from 0": lambda i: i - 1,
        "huge": lambda i: i + 2 ** draw.choice([31, 32, 53, 62, 63, 64]),
        "sparse": lambda i: i * 7919,
        "mixed": lambda i: str(i) if i % 2 else i,
    }
    kept = draw.random() < 0.3
    for item in coco[section]:
        item["id"] = to[form](item["id"])
    key = {"images": "image_id", "categories": "category_id"}.get(section)
    if key and not kept:
        for item in coco["annotations"]:
            item[key] = to[form](item[key])
    return f"{section} {form}{', references kept' if kept else ''}"


def change_boxes(coco: dict, draw: random.Random) -> str:
    form = draw.choice(
        ["parts", "corners", "tiny", "empty", "far", "minus", "nested", "text", "half"]
    )
    items = coco["annotations"]
    for item in items if draw.random() < 0.4 else [draw.choice(items)]:
        left, top, width, height = item["bbox"]
        item["bbox"] = {
            "parts": [left / WIDTH, top / HEIGHT, width / WIDTH, height / HEIGHT],
            "corners": [left, top, left + width, top + height],
            "tiny": [left, top, 1e-200, 1e-200],
            "empty": [left, top, draw.choice([0, width]), 0],
            "far": [left + 10.0 ** draw.randint(2, 13), top, width, height],
            "minus": [left + width, top + height, -width, -height],
            "nested": [[left, top, width, height]],
            "text": f"[{left}, {top}, {width}, {height}]",
            "half": [left - 3.5, top - 3.5, width, height],
        }[form]
    return form


def change_masks(coco: dict, draw: random.Random) -> str:
    mask = pick(coco, draw, "annotations")
    segmentation = mask.get("segmentation")
    if isinstance(segmentation, dict) and draw.random() < 0.8:
        return change_runs(segmentation, draw)
    points = segmentation[0] if isinstance(segmentation, list) else [1, 1, 9, 1, 9, 9]
    far = draw.choice([1e5, 1e7, 2.0**31, 1e18, 1e200])
    mask["segmentation"] = draw.choice(
        [
            [],
            [[]],
            [points[:2]],
            [points[:4]],
            [points[:5]],
            [points[:-1]],
            [points, []],
            [points, points[:4]],
            points,
            [[points]],
            [[str(p) for p in points]],
            [[[x, y] for x, y in zip(points[::2], points[1::2], strict=True)]],
            [[*points[:-1], float("nan")]],
            [[*points[:-1], far]],
            [[-far, *points[1:]]],
            [[p / 100 for p in points]],
            [[points[0], points[1]] * 3],
            [points, {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}],
            {"size": [HEIGHT, WIDTH], "counts": points},
            "",
            "polygon",
            None,
        ]
    )
    return repr(mask["segmentation"])[:100]


def change_runs(mask: dict, draw: random.Random) -> str:
    """Damages run lengths, as text or as a list."""
    counts = mask["counts"]
    form = draw.choice(["counts", "counts", "counts", "size", "kind", "key"])
    if form == "size":
        mask["size"] = draw.choice(
            [[WIDTH, HEIGHT], [HEIGHT], [HEIGHT, WIDTH, 3], [HEIGHT * 1.0, WIDTH], [0, 0], "32x40"]
            + [[2**16, 2**16], [-HEIGHT, -WIDTH], None, [str(HEIGHT), str(WIDTH)], [True, True]]
        )
    elif form == "key":
        del mask[draw.choice(["size", "counts"])]
    elif form == "kind":
        mask["counts"] = draw.choice(
            ["", [], None, 7, [[1]], ["a"], [True] * (HEIGHT * WIDTH), [HEIGHT * WIDTH * 1.0]]
            + [
                [0, HEIGHT * WIDTH],
                [HEIGHT * WIDTH],
                [-1, HEIGHT * WIDTH + 1],
                [2**32, 0],
                "~~~~~~~",
            ]
        )
    elif isinstance(counts, str):
        place = draw.randrange(len(counts))
        other = draw.choice([chr(draw.randint(1, 127)), "", "é", "\0", "P" * 20, counts])
        mask["counts"] = counts[:place] + other + counts[place + draw.choice([0, 1, 99]) :]
    else:
        place = draw.randrange(len(counts))
        counts[place] = draw.choice([-counts[place], counts[place] + 1, 2**31, 2**33, 1.5, None])
    return repr(mask)[:100]


def change_crowds(coco: dict, draw: random.Random) -> str:
    value = draw.choice(
        [0, 1, 1, 2, -1, 0.0, 1.0, 0.5, True, False, None, "0", "1", "", [], 10**20]
    )
    key = draw.choice(["iscrowd", "iscrowd", "iscrowd", "ignore"])
    for item in coco["annotations"] if draw.random() < 0.5 else [pick(coco, draw, "annotations")]:
        item[key] = value
    return f"{key}={value!r}"


def change_areas(coco: dict, draw: random.Random) -> str:
    value = draw.choice([0, -5, 0.5, 1e5, 1e11, 1e13, None, "40", float("nan"), True, [40]])
    for item in coco["annotations"] if draw.random() < 0.3 else [pick(coco, draw, "annotations")]:
        item["area"] = value
    return repr(value)


def change_sizes(coco: dict, draw: random.Random) -> str:
    image = pick(coco, draw, "images")
    height, width = image["height"], image["width"]
    image["height"], image["width"] = draw.choice(
        [
            (width, height),
            (height * 1.0, width),
            (height * 2, width),
            (1, 1),
            (0, 0),
            (-height, width),
        ]
        + [(10**6, 10**6), (70_000, 70_000), (str(height), str(width)), (height + 0.5, width)]
    )
    return f"{image['height']!r}, {image['width']!r}"


def enlarge(coco: dict, draw: random.Random) -> str:
    """Annotates an image, or all, at twice the resolution of the file."""
    chosen = coco["images"] if draw.random() < 0.5 else [pick(coco, draw, "images")]
    ids = [image["id"] for image in chosen]
    for image in chosen:
        image.update(height=2 * image["height"], width=2 * image["width"])
    for item in coco["annotations"]:
        if item["image_id"] not in ids:
            continue
        item.update(bbox=[2 * x for x in item["bbox"]], area=4 * item["area"])
        mask = item["segmentation"]
        if isinstance(mask, list):
            item["segmentation"] = [[2 * x for x in polygon] for polygon in mask]
            continue
        as_list = isinstance(mask["counts"], list)
        runs = coco_mask.frPyObjects(mask, *mask["size"]) if as_list else mask
        pixels = np.kron(coco_mask.decode(runs), np.ones((2, 2), np.uint8))
        runs = coco_mask.encode(np.asfortranarray(pixels))
        item["segmentation"] = {"size": runs["size"], "counts": runs["counts"].decode()}
    return f"{len(chosen)} images"


def change_files(coco: dict, draw: random.Random) -> str:
    image = pick(coco, draw, "images")
    name = image["file_name"]
    image["file_name"] = draw.choice(
        ["0.png", "none.png", f"./{name}", f"../images/{name}", f"D:\\x\\{name}", f"x/{name}", "."]
        + [name.upper(), f"{name} ", "", "\x1b]0;a\x07.png", "train.json", f"/{name}", "a" * 300]
    )
    return repr(image["file_name"])[:60]


def change_categories(coco: dict, draw: random.Random) -> str:
    categories = coco["categories"]
    form = draw.choice(["reverse", "same", "space", "more", "unknown", "group", "case", "other"])
    if form == "reverse":
        categories.reverse()
    elif form in ("same", "space", "case", "other"):
        name = categories[0]["name"]
        changed = {"same": name, "space": f"{name} ", "case": "Dog", "other": "bird"}[form]
        categories[-1]["name"] = changed
    elif form in ("more", "group"):
        number = draw.choice([0, 9, 10**9])
        categories.insert(draw.randint(0, 2), {"id": number, "name": "pets"})
        for category in categories:
            category["supercategory"] = "pets" if form == "group" else draw.choice(ODD)
    else:
        pick(coco, draw, "annotations")["category_id"] = draw.choice([0, 3, -1, "1", None, 1.0])
    return form


def change_top(coco: dict, draw: random.Random) -> str:
    section = draw.choice(["images", "annotations", "categories", "info", "type"])
    value = draw.choice([None, {}, [], "a", 1, [None], [[]], ["a"], [{}], {"1": {"id": 1}}])
    if draw.random() < 0.3:
        coco.pop(section, None)
        return f"no {section}"
    coco[section] = value
    return f"{section}={value!r}"


def add_nesting(coco: dict, draw: random.Random) -> str:
    value: object = 1
    for _ in range(depth := draw.choice([3, 50, 300])):
        value = [value] if draw.random() < 0.5 else {"a": value}
    item = pick(coco, draw)
    key = draw.choice([*item, "attributes"])
    item[key] = value
    return f"{key} {depth} deep"


CHANGES = [set_value, set_value, set_value, set_in_list, delete_key, repeat_item, drop_items]
CHANGES += [change_ids, change_ids, change_boxes, change_boxes, change_masks, change_masks]
CHANGES += [change_masks, change_crowds, change_areas, change_sizes, change_files]
CHANGES += [change_categories, change_top, add_nesting]


def truncate(text: str, draw: random.Random) -> bytes:
    return text.encode("utf-8", "replace")[: draw.randrange(len(text))]


def encode_otherwise(text: str, draw: random.Random) -> bytes:
    encoding = draw.choice(["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"])
    return text.encode(encoding, "replace")


def nest_deeply(text: str, draw: random.Random) -> bytes:
    depth = draw.choice([900, 5_000, 100_000])
    opening, closing = draw.choice([("[", "]"), ('{"a":', "}")])
    nested = opening * depth + "1" + closing * draw.choice([depth, 0])
    return (nested if draw.random() < 0.3 else f'{{"x": {nested}, {text[1:]}').encode(
        "utf-8", "replace"
    )


def repeat_keys(text: str, draw: random.Random) -> bytes:
    extra = draw.choice(['"images": []', '"annotations": []', '"categories": 1', '"info": {}'])
    changed = f"{{{extra}, {text[1:]}" if draw.random() < 0.5 else f"{text[:-1]}, {extra}}}"
    return changed.encode("utf-8", "replace")


def add_bytes(text: str, draw: random.Random) -> bytes:
    content = bytearray(text.encode("utf-8", "replace"))
    for _ in range(draw.choice([1, 3])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content) + draw.choice([b"", b"", b"\n\n", b"x", b"\0", b"{}", b" "])


def write_big_number(text: str, draw: random.Random) -> bytes:
    number = draw.choice(["1" * 5000, "1e999", "-Infinity", "NaN", "0x10", "01", "1_000", "1."])
    key = draw.choice(["width", "area", "image_id", "id", "iscrowd"])
    return text.replace(f'"{key}": ', f'"{key}": {number}, "old": ', 1).encode("utf-8", "replace")


SPOILERS = [truncate, encode_otherwise, encode_otherwise, nest_deeply, repeat_keys, add_bytes]
SPOILERS += [add_bytes, write_big_number]
