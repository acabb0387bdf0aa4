"""Cityscapes' label maps as mmseg trains on them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import Cityscapes

from swin_mm.datasets.prepare.archives import PrepareError
from swin_mm.datasets.progress import show_progress

GIVEN, MADE = "_labelIds.png", "_labelTrainIds.png"
LABEL_MAPS = f"gtFine/*/*/*_gtFine{MADE}"
IGNORED = 255


def convert_cityscapes(folder: Path, threads: int = 1) -> None:
    """Writes `*_gtFine_labelTrainIds.png` beside every `*_gtFine_labelIds.png`.

    mmseg's own converter draws the polygons of the annotations with `cityscapesscripts`. Every
    pixel of the published maps is already the id of the polygon on top, so looking up the class of
    each id gives the same map without that package, and faster.

    Raises:
        PrepareError: A map cannot be read, or holds an id that Cityscapes does not have.
    """
    given = sorted(folder.glob(f"gtFine/*/*/*_gtFine{GIVEN}"))
    todo = [path for path in given if not _made(path).exists()]
    with ThreadPoolExecutor(threads) as pool, show_progress("label maps", len(todo)) as advance:
        for _ in pool.map(_convert, todo):
            advance(1)


def _made(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(GIVEN) + MADE)


def _convert(path: Path) -> None:
    try:
        with Image.open(path) as image:
            ids = np.array(image)
    except (OSError, SyntaxError) as error:
        raise PrepareError(
            f"cannot read {path} ({error}): delete it and run this again to unpack it"
        ) from None
    table = train_ids()
    unknown = sorted(set(np.unique(ids).tolist()) - set(table))
    if unknown:
        raise PrepareError(
            f"{path} has the ids {unknown}, which Cityscapes does not: take it out, or fetch "
            "gtFine_trainvaltest.zip again"
        )
    lookup = np.full(256, IGNORED, dtype=np.uint8)
    lookup[list(table)] = list(table.values())
    # Whole or not there: what exists is left alone by the next run.
    partial = _made(path).with_suffix(".partial")
    Image.fromarray(lookup[ids]).save(partial, format="png")
    partial.replace(_made(path))


def train_ids() -> dict[int, int]:
    """Returns the class, or 255 for none, of each id in the published label maps."""
    return {label.id: label.train_id for label in Cityscapes.classes if label.id >= 0}
