"""Corrects what annotation tools write: file names spelled otherwise, a class listed twice."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, unquote_plus, urlsplit

from swin_mm.datasets.check.summary import DatasetError, examples

MOST_FILES = 1_000_000  # looked at in a folder; whoever names `/` should not wait for hours
# Writes annotations with the names of files, and with one category for each name.
COPY = "swin-mm init-config --coco {}"
# Of labelme, and of tools after it.
NO_CLASS = ("_background_", "__background__", "__ignore__")
UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # that Label Studio puts before an uploaded file


def match_names(coco: dict, folder: str) -> tuple[dict, list[str]]:
    """Replaces names of images by those of the files in a folder that they mean.

    A name that is a file's stays. Others are compared without regard to case, Unicode form, URL
    encoding and the kind of slash. Of an absolute name (with a drive letter or as a URL as well)
    only the end must agree; a relative name must agree whole, or be the end of the file's path.

    Returns:
        The annotations with other names, and what was changed, in words.
    """
    names = [image["file_name"] for image in coco["images"]]
    found = find_files(names, folder)
    unmatched = [name for name in found if not found[name]]
    ambiguous = [f"{name} is {' or '.join(f[:2])}" for name, f in found.items() if f[1:]]
    for what, wrong, remedy in (
        ("no file", unmatched, "put them there, or name their folder with --images"),
        ("several files", ambiguous, "name a folder further down with --images"),
    ):
        if wrong:
            raise DatasetError(
                f"{len(wrong)} of {len(names)} names match {what} in {folder}: "
                f"{examples(wrong)}; {remedy}"
            )
    by_file = defaultdict(list)
    for name, (file,) in found.items():
        by_file[file].append(name)
    if shared := [f"{' and '.join(ns)} are {file}" for file, ns in by_file.items() if ns[1:]]:
        raise DatasetError(f"several names match one file: {examples(shared)}")
    changed = {name: file for name, (file,) in found.items() if file != name}
    if not changed:
        return coco, []
    images = [
        {**image, "file_name": changed.get(image["file_name"], image["file_name"])}
        for image in coco["images"]
    ]
    return {**coco, "images": images}, [
        f"{len(changed)} names of images were replaced by those of files, such as "
        f"{_first_pair(changed)}"
    ]


def suggest_matching(names: Sequence[str], folder: str) -> str:
    """Returns what files names may mean, for a message; empty where none would be found."""
    try:
        found = find_files(names, folder)
    except DatasetError:  # too many files to look at
        return ""
    changed = {name: f[0] for name, f in found.items() if len(f) == 1 and f != [name]}
    if not changed:
        return ""
    return f"; {len(changed)} names match files that are spelled otherwise ({_first_pair(changed)})"


def _first_pair(changed: dict[str, str]) -> str:
    name, file = next(iter(changed.items()))
    if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", file):
        return f"{name} in another Unicode form"  # the two look the same
    return f"{file} for {name}"


def choose_folder(names: Sequence[str], folders: Sequence[str]) -> str:
    """Returns the folder in which the most names match a file, the first of several."""
    return max(
        folders, key=lambda folder: sum(len(f) == 1 for f in find_files(names, folder).values())
    )


def find_files(names: Iterable[str], folder: str) -> dict[str, list[str]]:
    """Finds the files in a folder that names mean, as `match_names` compares them.

    Returns:
        Each name with its files, relative to the folder: none, one, or several that fit equally.
    """
    names = list(dict.fromkeys(names))
    found = {name: [name] for name in names if os.path.isfile(os.path.join(folder, name))}
    if len(found) == len(names):
        return found
    by_name = defaultdict(list)
    for file in list_files(folder, MOST_FILES):
        by_name[_parts(file)[-1]].append(file)
    for name in names:
        if name not in found:
            last = _parts(name)[-1]
            candidates = by_name.get(last) or by_name.get(UPLOAD_PREFIX.sub("", last), [])
            found[name] = _best(name, candidates)
    return found


def list_files(folder: str, most: float = float("inf")) -> list[str]:
    """Lists at most `most` files below a folder, relative to it, with forward slashes."""
    files: list[str] = []
    for parent, _, names in os.walk(folder):
        place = os.path.relpath(parent, folder)
        files += names if place == "." else [f"{place}/{name}" for name in names]
        if len(files) > most:
            raise DatasetError(f"{folder} has more than {most:,} files: name a folder further down")
    return files


def _best(name: str, files: Sequence[str]) -> list[str]:
    """Returns the files whose paths agree with a name in most folders, then in spelling."""
    ranks = {file: _rank(name, file) for file in files}
    best = max(ranks.values(), default=None)
    return sorted(file for file in files if ranks[file] == best) if best and best[0] else []


def _rank(name: str, file: str) -> tuple[int, int]:
    """How many parts of two paths agree, 0 where that is too few, and in how many spellings."""
    wanted, given = _parts(name), _parts(file)
    pairs = list(zip(reversed(wanted[:-1]), reversed(given[:-1]), strict=False))
    agreeing = next((i for i, (one, other) in enumerate(pairs) if one != other), len(pairs))
    # The folders of an absolute name are those of a machine, and say nothing about this one.
    is_absolute = re.match(r"[\\/]|\.\.[\\/]|[A-Za-z]:|[A-Za-z][\w.+-]*://", name)
    if agreeing < len(pairs) and not is_absolute:
        return 0, 0
    ends = [re.split(r"[\\/]", path)[-1] for path in (name, file)]
    spellings = [ends, [unicodedata.normalize("NFC", end) for end in ends], map(unquote, ends)]
    return 1 + agreeing, sum(one == other for one, other in spellings)


def _parts(name: str) -> list[str]:
    """Returns the folders and the name in a path, all spellings of one made equal."""
    name = name.rpartition("?d=")[2]  # Label Studio's local files
    if "://" in name:
        name = urlsplit(name).path
    while (decoded := unquote_plus(name)) != name:  # some tools encode twice
        name = decoded
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    name = re.sub(r"^[a-z]:", "", name)
    return [part for part in re.split(r"[\\/]", name) if part not in ("", ".")] or [""]


def merge_classes(coco: dict) -> tuple[dict, list[str]]:
    """Gives categories of one name the id of the first of them.

    Returns:
        The annotations with each class once, and what was changed, in words.
    """
    first: dict[str, dict] = {}
    for category in coco["categories"]:
        first.setdefault(class_key(category["name"]), category)
    if len(first) == len(coco["categories"]):
        return coco, []
    new_ids = {c["id"]: first[class_key(c["name"])]["id"] for c in coco["categories"]}

    annotations = [
        {**item, "category_id": new_ids.get(item["category_id"], item["category_id"])}
        for item in coco["annotations"]
    ]
    twice = examples(map(repr, _listed_twice(coco)))
    return {**coco, "categories": list(first.values()), "annotations": annotations}, [
        f"categories called {twice} were made one"
    ]


def check_listed_once(coco: dict, path: str, classes: Iterable[str]) -> None:
    """Checks that no two categories have the name of a class, by which mmdet finds it."""
    keys = set(map(class_key, classes))
    twice = [name for name in _listed_twice(coco) if name in keys]
    if twice:
        raise DatasetError(
            f"{path}: several categories are called {examples(map(repr, twice))}, and mmdet finds "
            f"classes by name: rename them, or use the copy that `{COPY.format(path)}` writes"
        )


def _listed_twice(coco: dict) -> list[str]:
    counts = Counter(class_key(category["name"]) for category in coco["categories"])
    return [name for name, count in counts.items() if count > 1]


def class_key(name: str) -> str:
    """Returns a class name without what no reader sees: its Unicode form, spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def find_placeholders(coco: dict) -> dict[str, str]:
    """Finds categories that stand for no class and have no object: by name, why in words."""
    used = {annotation["category_id"] for annotation in coco["annotations"]}
    found = {}
    for category in coco["categories"]:
        others = [c.get("supercategory") for c in coco["categories"] if c is not category]
        if category["id"] in used or not others:
            continue
        if category["name"].casefold().strip("_") in ("background", "ignore"):
            found[category["name"]] = "annotation tools write it for what is no object"
        elif all(other == category["name"] for other in others):
            found[category["name"]] = (
                "it is the supercategory of all others, without objects, as Roboflow writes it"
            )
    return found
