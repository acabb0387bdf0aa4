"""Keeps what a detector or a segmentor predicts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import DumpDetResults
from mmengine.evaluator import DumpResults
from torch import Tensor


class DumpInstances(DumpDetResults):
    """mmdet's dump of detections, for masks that are run lengths already too.

    Args:
        out_file_path: The file; ends in `.pkl`.
    """

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
    """Pickles one dict for each image, with `img_path`, `labels` and `confidence` `(H, W)`.

    Confidence is the probability of the predicted class, in 255 steps. It is left out where it is
    not known: of views that mmseg's `SegTTAModel` merged, whose logits are those of one view alone.
    mmengine's own dump keeps the scores of every class at every pixel: two hundred times as much.

    Args:
        out_file_path: The file; ends in `.pkl`.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            labels = sample["pred_sem_seg"]["data"]
            labels = labels.reshape(labels.shape[-2:])  # mmseg's merged views come without a band
            entry = {"img_path": sample["img_path"], "labels": labels.cpu().numpy()}
            entry["labels"] = entry["labels"].astype(np.int16)
            if "seg_logits" in sample:
                scores = _probabilities(sample["seg_logits"]["data"])
                probability = scores.gather(0, labels[None].long())[0]
                # One channel is compared with a threshold, so the likelier class may lose.
                one_channel = len(sample["seg_logits"]["data"]) == 1
                if one_channel or bool((scores.argmax(dim=0) == labels).all()):
                    steps = (255 * probability).round().clamp(0, 255)
                    entry["confidence"] = steps.cpu().numpy().astype(np.uint8)
            self.results.append(entry)


def _probabilities(logits: Tensor) -> Tensor:
    """Probabilities of classes `(C, H, W)`; those that a model gives already are taken as they are.

    Mask2Former's are sums of masks weighted by the probabilities of classes: none is negative. Of
    one channel, `(1, H, W)`, both classes' are returned, the background's first.
    """
    if len(logits) == 1:
        given = bool(logits.min() >= 0) and bool(logits.max() <= 1)
        foreground = logits if given else logits.float().sigmoid()
        return torch.cat([1 - foreground, foreground])
    return logits if bool(logits.min() >= 0) else logits.float().softmax(dim=0)
