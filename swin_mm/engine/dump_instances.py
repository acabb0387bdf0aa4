"""Keeps the instances that a detector predicts."""

from collections.abc import Sequence
from typing import Any

from mmdet.evaluation import DumpDetResults


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
