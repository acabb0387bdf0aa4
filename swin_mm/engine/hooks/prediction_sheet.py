"""A sheet of predictions beside the ground truth, drawn after a test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData

from swin_mm.datasets.picture import Annotation, Row, choose_palette, prediction_sheet
from swin_mm.datasets.reader import Reader
from swin_mm.registry import HOOKS
from swin_mm.structures import Objects, to_objects


@HOOKS.register_module()
class PredictionSheetHook(Hook):
    """Draws images spread evenly over the test set to `predictions.png` in the work directory.

    Serves detectors and segmentors. An image whose sample has no ground truth (the test pipeline
    has no `LoadAnnotations`) is left out.

    Args:
        images: How many to draw, at most.
        min_score: Detections below this score are left out.
    """

    def __init__(self, images: int = 12, min_score: float = 0.5) -> None:
        self.images = images
        self.min_score = min_score

    def before_test_epoch(self, runner: Runner) -> None:
        self.rows: list[Row] = []
        self.seen = 0
        total = len(runner.test_dataloader.dataset)
        self.chosen = set(np.linspace(0, total - 1, min(self.images, total)).astype(int).tolist())

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence = ()
    ) -> None:
        """Keeps what the sheet needs of the chosen images."""
        if not is_main_process():  # the first process has its share of the set, spread over it
            return
        for sample in outputs:
            if self.seen in self.chosen:
                row = _to_row(sample, runner.test_dataloader.dataset, self.min_score)
                self.rows += [row] if row else []
            self.seen += 1

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if not self.rows:
            return
        meta = runner.test_dataloader.dataset.metainfo
        path = Path(runner.work_dir) / "predictions.png"
        prediction_sheet(
            self.rows, path, meta["classes"], choose_palette(meta), min_score=self.min_score
        )
        self.rows = []
        print_log(f"Drew predictions beside the ground truth: {path}", logger="current")


def _to_row(sample: Any, dataset: Any, min_score: float) -> Row | None:
    if not isinstance(sample, BaseDataElement):  # of a model of neither mmdet nor mmseg
        return None
    if "gt_sem_seg" in sample:
        truth, prediction = _label_map(sample.gt_sem_seg), _label_map(sample.pred_sem_seg)
    elif "gt_instances" in sample and "bboxes" in sample.gt_instances:
        # Only what will be drawn: hundreds of masks of a large image fill the memory.
        found = sample.pred_instances[sample.pred_instances.scores >= min_score]
        truth, prediction = _objects(sample.gt_instances), _objects(found)
    else:
        return None
    return Row(Reader.of(dataset).picture(sample.img_path), truth, prediction)


def _label_map(element: BaseDataElement) -> Annotation:
    return element.data.squeeze(0).cpu().numpy()  # (H, W)


def _objects(found: InstanceData) -> Objects:
    return to_objects(found.labels, found.bboxes, found.get("masks"), found.get("scores"))
