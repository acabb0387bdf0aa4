"""Counts of matched segments, and panoptic quality.

Source:
    Kirillov et al., Panoptic Segmentation, 2019, https://arxiv.org/abs/1801.00868, equation 1
    https://github.com/cocodataset/panopticapi/blob/master/panopticapi/evaluation.py
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OFFSET = 256**3  # more than any id of a segment
VOID = 0  # the id of pixels in no segment


@dataclass
class PQStatCat:
    """Counts of one class: the sum of overlaps of matched segments, matches, and the rest."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: "PQStatCat") -> "PQStatCat":
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def qualities(self) -> dict[str, float]:
        """Panoptic, segmentation and recognition quality, 0 to 1; the first is their product."""
        segmentation = self.iou / self.tp if self.tp else 0.0
        recognition = self.tp / (self.tp + (self.fp + self.fn) / 2) if self else 0.0
        return dict(pq=segmentation * recognition, sq=segmentation, rq=recognition)

    def __bool__(self) -> bool:
        return self.tp + self.fp + self.fn > 0


class PQStat:
    """Counts of all classes."""

    def __init__(self) -> None:
        self.pq_per_cat: defaultdict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category: int) -> PQStatCat:
        return self.pq_per_cat[category]

    def __iadd__(self, other: "PQStat") -> "PQStat":
        for category, counts in other.pq_per_cat.items():
            self.pq_per_cat[category] += counts
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping[str, Any]], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Means over classes that occur, and the qualities of each class by id.

        They are of things, of stuff, or, where `isthing` is None, of both. Means are 0 where no
        class occurs; `n` says how many do.
        """
        chosen = [
            number
            for number, category in categories.items()
            if isthing is None or isthing == (category["isthing"] == 1)
        ]
        per_class = {number: self[number].qualities() for number in chosen}
        seen = [per_class[number] for number in chosen if self[number]]
        means = {
            name: sum(qualities[name] for qualities in seen) / max(1, len(seen))
            for name in ("pq", "sq", "rq")
        }
        return {**means, "n": len(seen)}, per_class
