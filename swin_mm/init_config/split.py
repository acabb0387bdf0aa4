"""Splits data into training and validation parts, always in the same way."""

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

SHARE = 0.2  # of the images, for validation


def split_names(
    names: Sequence[str],
    labels: Mapping[str, Collection[Hashable]] | None = None,
    share: float = SHARE,
) -> tuple[list[str], list[str]]:
    """Chooses images for validation by the hash of their names, so that every class is in both.

    The choice does not depend on the order, and hardly on which other images there are. Images that
    belong together (frames of a film, tiles of a map) are not recognised as such: split such data
    by hand.

    Args:
        names: File names, each once.
        labels: The classes in each image. A class in two or more images comes to be in both parts.
        share: Part for validation, 0 to 1; at least one image.

    Returns:
        Names for training and for validation, each in the given order.

    Raises:
        ValueError: Fewer than two images.
    """
    if len(names) < 2:
        raise ValueError(f"a split needs at least two images, got {len(names)}: name --coco twice")
    labels = labels or {}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(len(names) - 1, max(1, round(share * len(names))))
    total = Counter(label for name in names for label in labels.get(name, ()))
    left = Counter(total)
    chosen: dict[str, None] = {}  # in the order of choice

    def choose(name: str) -> None:
        chosen[name] = None
        left.subtract(labels.get(name, ()))

    def can_go(name: str) -> bool:
        return name not in chosen and all(left[label] > 1 for label in labels.get(name, ()))

    for label, images in sorted(total.items(), key=lambda item: (item[1], str(item[0]))):
        represented = any(label in labels.get(name, ()) for name in chosen)
        if images > 1 and not represented and len(chosen) < count:
            bearers = [name for name in order if label in labels.get(name, ()) and can_go(name)]
            if bearers:
                choose(bearers[0])
    for name in order:
        if len(chosen) >= count:
            break
        if can_go(name):
            choose(name)
    for name in order:  # what is left holds the last of some class: the count comes first
        if len(chosen) >= count:
            break
        if name not in chosen:
            choose(name)
    return [n for n in names if n not in chosen], [n for n in names if n in chosen]
