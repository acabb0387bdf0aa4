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
        names: File names, each once, two at least.
        labels: The classes in each image. A class in two or more images comes to be in both parts.
        share: Part for validation, 0 to 1; at least one image.

    Returns:
        Names for training and for validation, each in the given order.
    """
    if len(names) < 2:
        raise ValueError(f"a split needs at least two images, got {len(names)}: name --coco twice")
    classes = {name: set((labels or {}).get(name, ())) for name in names}
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    count = min(len(names) - 1, max(1, round(share * len(names))))
    total = Counter(label for name in names for label in classes[name])
    left = Counter(total)
    chosen: set[str] = set()

    def choose(most: int, label: Hashable = None, keep_last: bool = True) -> None:
        for name in order:
            has_label = label is None or label in classes[name]
            is_last = keep_last and any(left[other] <= 1 for other in classes[name])
            if len(chosen) < min(most, count) and name not in chosen and has_label and not is_last:
                chosen.add(name)
                left.subtract(classes[name])

    for label, images in sorted(total.items(), key=lambda item: (item[1], str(item[0]))):
        if images > 1 and left[label] == images:
            choose(len(chosen) + 1, label)
    choose(count)
    choose(count, keep_last=False)
    return [n for n in names if n not in chosen], [n for n in names if n in chosen]
