"""Keeps the label maps that a segmentor predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import DumpResults
from torch import Tensor


class DumpLabelMaps(DumpResults):
    """Pickles one dict for each image, with `img_path`, `labels` and `confidence` `(H, W)`.

    Confidence is the probability of the predicted class, in 255 steps. It is left out where it is
    not known: of merged views, whose logits are those of one view alone.

    mmengine's own dump keeps all that is known of an image, with the scores of every class at
    every pixel: two hundred times as much.

    Args:
        out_file_path: The file; ends in `.pkl`.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"].squeeze(0)  # (H, W)
            entry = {"img_path": sample["img_path"], "labels": labels.cpu().numpy()}
            entry["labels"] = entry["labels"].astype(np.int16)
            if "seg_logits" in sample:
                probability, predicted = _probabilities(sample["seg_logits"]["data"]).max(dim=0)
                if bool((predicted == labels).all()):
                    steps = (255 * probability).round().clamp(0, 255)
                    entry["confidence"] = steps.cpu().numpy().astype(np.uint8)
            self.results.append(entry)


def _probabilities(logits: Tensor) -> Tensor:
    """Probabilities of classes `(C, H, W)`; those that a model gives already are taken as they are.

    Mask2Former's are sums of masks weighted by the probabilities of classes: none is negative.
    """
    return logits if bool(logits.min() >= 0) else logits.float().softmax(dim=0)
