"""What mmdet asks of `panopticapi`, which is not on PyPI, written anew for tests.

Panoptic quality is that of Kirillov et al., https://arxiv.org/abs/1801.00868: for each class the
sum of the overlaps of matched segments over matches plus half of what is left on either side.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from mmdet.evaluation.functional import panoptic_utils
from mmdet.evaluation.metrics import coco_panoptic_metric

VOID = 0


def rgb2id(colours):
    """Ids of segments `(H, W)` from colours `(H, W, 3)`: the red channel counts ones."""
    return colours.astype(np.int64) @ np.array([1, 256, 65536])


def id2rgb(ids):
    """Colours `(H, W, 3)` of ids `(H, W)`."""
    return np.stack([ids // 256**place % 256 for place in range(3)], axis=-1).astype(np.uint8)


@dataclass
class ClassCount:
    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0


class PQStat:
    def __init__(self):
        self.counts = defaultdict(ClassCount)

    def __getitem__(self, label):
        return self.counts[label]

    def __iadd__(self, other):
        for label, count in other.counts.items():
            for name, value in vars(count).items():
                setattr(self[label], name, getattr(self[label], name) + value)
        return self

    def pq_average(self, categories, isthing):
        chosen = [key for key, c in categories.items() if isthing in (None, c["isthing"] == 1)]
        per_class = {}
        for label in chosen:
            count = self[label]
            half = 0.5 * (count.fp + count.fn)
            quality = count.iou / (count.tp + half) if count.tp + half else 0.0
            segmentation = count.iou / count.tp if count.tp else 0.0
            recognition = count.tp / (count.tp + half) if count.tp + half else 0.0
            per_class[label] = {"pq": quality, "sq": segmentation, "rq": recognition}
        seen = [key for key in chosen if vars(self[key]) != vars(ClassCount())]
        mean = {
            name: sum(per_class[key][name] for key in seen) / max(1, len(seen))
            for name in ("pq", "sq", "rq")
        }
        return {**mean, "n": len(seen)}, per_class


def stand_in(monkeypatch):
    """Has mmdet find this module where it looks for `panopticapi`."""
    package, utils = ModuleType("panopticapi"), ModuleType("panopticapi.utils")
    utils.rgb2id, utils.id2rgb, package.utils = rgb2id, id2rgb, utils
    monkeypatch.setitem(sys.modules, "panopticapi", package)
    monkeypatch.setitem(sys.modules, "panopticapi.utils", utils)
    for module in (panoptic_utils, coco_panoptic_metric):
        for name, value in dict(PQStat=PQStat, VOID=VOID, rgb2id=rgb2id, id2rgb=id2rgb).items():
            monkeypatch.setattr(module, name, value, raising=False)
    monkeypatch.setattr(coco_panoptic_metric, "panopticapi", package)
