"""Keeps what a detector or a segmentor predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.evaluation import DumpDetResults
from mmengine.evaluator import DumpResults


class DumpInstances(DumpDetResults):
    """mmdet's dump of detections to a `.pkl`, for masks that are run lengths already too."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            found = dict(sample["pred_instances"]) if "pred_instances" in sample else {}
            runs = getattr(found.get("masks"), "runs", None)
            if runs is None:
                super().process(data_batch, [sample])
                continue
            del found["masks"]
            super().process(data_batch, [{**sample, "pred_instances": found}])
            self.results[-1]["pred_instances"]["masks"] = runs


class DumpLabelMaps(DumpResults):
    """Pickles one dict for each image to a `.pkl`, with `img_path` and `labels` `(H, W)`.

    mmengine's own dump keeps the scores of every class at every pixel: two hundred times as much.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"]
            labels = labels.reshape(labels.shape[-2:])  # mmseg's merged views come without a band
            labels = labels.cpu().numpy().astype(np.int16)
            self.results.append({"img_path": sample["img_path"], "labels": labels})
