"""Keeps the label maps that a segmentor predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import DumpResults


class DumpLabelMaps(DumpResults):
    """Pickles one dict for each image, with `img_path` and `labels` `(H, W)`.

    mmengine's own dump keeps all that is known of an image, with the scores of every class at
    every pixel: two hundred times as much.

    Args:
        out_file_path: The file; ends in `.pkl`.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"].squeeze(0).cpu().numpy()  # (H, W)
            self.results.append({"img_path": sample["img_path"], "labels": labels.astype(np.int16)})
