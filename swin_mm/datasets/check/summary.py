"""What a check finds: an error, or counts and warnings."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from swin_mm.text import printable

LISTED = 3  # examples in a message, of many
LONGEST = 300  # characters of one of them; paths may be long
LISTED_CLASSES = 12  # classes in a row of the start table


class DatasetError(ValueError):
    """Data that cannot be trained or tested on; one line: what is wrong, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


@dataclass
class SplitSummary:
    """What one data loader's data set holds.

    Attributes:
        images: Number of images; 0 where the data set is of a kind that is not checked.
        empty: Images without an object, or label maps (of those read) without a labelled pixel.
        instances: Number of objects; None for label maps.
        per_class: Class name to number of objects, or to share of labelled pixels (0 to 1, of the
            label maps that were read).
        warnings: Legal, but worth knowing; one line each.
        sampled: Whether only a part of the label maps was read.
        learned: Class name to number of objects that training learns; None where not counted.
        unlearned: Reason (see `objects.REASONS`) to number of objects that it does not.
        crowds: Objects with `iscrowd`.
        unscorable: What mmdet's COCO metric cannot score, `"bbox"` (any metric) or `"segm"`, and
            why.
    """

    images: int = 0
    empty: int = 0
    instances: int | None = None
    per_class: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    sampled: bool = False
    learned: dict[str, int] | None = None
    unlearned: Counter[str] = field(default_factory=Counter)
    crowds: int = 0
    unscorable: dict[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """Returns the counts in words."""
        if not self.images:
            return "not checked"
        parts = [f"{self.images} images"]
        if self.instances is not None:
            parts.append(f"{self.instances} objects")
        if self.empty:
            lacking = "labels" if self.instances is None else "objects"
            parts.append(f"{self.empty} images without {lacking}")
        return ", ".join(parts)

    def describe_classes(self) -> str:
        """Returns the first dozen classes with their counts or shares."""
        form = "{} {:.1%}" if self.instances is None else "{} {:.0f}"
        words = [form.format(name, value) for name, value in self.per_class.items()]
        more = len(words) - LISTED_CLASSES
        return ", ".join(words[:LISTED_CLASSES] + [f"and {more} more"] * (more > 0))


@dataclass
class DatasetSummary:
    """What the data sets of a config hold.

    Attributes:
        classes: Class names, in the order of their labels; empty where they could not be found.
        splits: `"train"`, `"val"` and `"test"`, as far as they were checked.
    """

    classes: tuple[str, ...]
    splits: dict[str, SplitSummary]

    def warnings(self) -> list[str]:
        """Returns the warnings of all splits, once where several splits have the same data."""
        distinct = {id(split): split for split in self.splits.values()}.values()
        return [warning for split in distinct for warning in split.warnings]

    def rows(self) -> list[tuple[str, str]]:
        """Returns `(heading, text)` for each line of the table shown at the start."""
        rows = [("classes", str(len(self.classes)))] if self.classes else []
        for name, split in self.splits.items():
            rows.append((f"{name} data", split.describe()))
            if split.per_class:
                rows.append((f"{name} classes", split.describe_classes()))
        return rows


def merge(parts: list[SplitSummary]) -> SplitSummary:
    """Adds up the data sets of a concatenation; shares are weighted by images."""
    if len(parts) == 1:
        return parts[0]
    whole = SplitSummary()
    counts: dict[str, float] = defaultdict(float)
    learned: Counter[str] = Counter()
    for part in parts:
        whole.images += part.images
        whole.empty += part.empty
        whole.warnings += part.warnings
        whole.sampled |= part.sampled
        whole.unlearned += part.unlearned
        whole.crowds += part.crowds
        learned.update(part.learned or {})
        if part.instances is not None:
            whole.instances = (whole.instances or 0) + part.instances
        weight = part.images if part.instances is None else 1
        for name, value in part.per_class.items():
            counts[name] += weight * value
    if parts and all(part.learned is not None for part in parts):
        whole.learned = dict(learned)
    scale = whole.images if whole.instances is None and whole.images else 1
    whole.per_class = {name: value / scale for name, value in counts.items()}
    return whole


def examples(items: Iterable) -> str:
    """Lists the first few of many items, shortened: `a, b, c and 12 more`."""
    items = list(items)
    shown = ", ".join(_shorten(str(item)) for item in items[:LISTED])
    return f"{shown} and {len(items) - LISTED} more" if len(items) > LISTED else shown


def _shorten(text: str) -> str:
    """Leaves the middle of a long text out, as of an id of thousands of digits."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def and_more(count: int, what: str = "") -> str:
    """Says how many others are like the one that a message describes."""
    return f" (and {count - 1} more {what}like it)" if count > 1 else ""
