"""What an exported file reaches on a config's validation data."""

from itertools import islice
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from swin_mm.configs import bare_type, find_scope
from swin_mm.datasets.reader import Reader
from swin_mm.export.runtime import ExportedModel


class Evaluation:
    """Measures files as a validation in training measures a model.

    Args:
        cfg: A config with `val_dataloader` and `val_evaluator`.
        max_images: Images from the beginning of the data; COCO's metrics are of these alone.

    Raises:
        FileNotFoundError: The data is not there.
    """

    def __init__(self, cfg: Config, max_images: int) -> None:
        metrics = _choose_metrics(cfg.val_evaluator)
        with DefaultScope.overwrite_default_scope(find_scope(cfg)):
            self.dataset: Any = DATASETS.build(cfg.val_dataloader.dataset)
            self.evaluator = Evaluator(metrics)
        self.evaluator.dataset_meta = self.dataset.metainfo
        self.count = min(max_images, len(self.dataset))

    def __call__(self, file: ExportedModel) -> dict[str, float]:
        """Measures a file: metrics by name."""
        evaluator = self.evaluator
        reader = Reader.of(self.dataset)
        ids = []
        for data in islice(self.dataset, self.count):
            sample = data["data_samples"]
            _predict(file, sample, reader)
            ids.append(sample.metainfo.get("img_id"))
            evaluator.process([sample])
        for metric in evaluator.metrics:
            if hasattr(metric, "img_ids"):  # of COCO's annotations
                metric.img_ids = ids
        return evaluator.evaluate(self.count)


def _choose_metrics(evaluator: Any) -> list[Any]:
    """The metrics of what a file gives: panoptic models give segments alone, no objects."""
    metrics = list(evaluator) if isinstance(evaluator, list | tuple) else [evaluator]
    panoptic = [metric for metric in metrics if "Panoptic" in bare_type(metric)]
    # Files of results would need all images.
    return [dict(metric, outfile_prefix=None) for metric in panoptic] or metrics


def _predict(file: ExportedModel, sample: Any, reader: Reader) -> None:
    """Puts what a file finds in an image into its data sample."""
    found = file.predict(reader.read(sample.img_path), score_thr=0.0)
    if found.segments is not None:
        assert found.labels is not None
        # As mmdet: the class plus 1000 times a number; the number of classes where there is none.
        numbers = np.arange(1, len(found.labels) + 1)
        values = np.append(len(file.metadata["classes"]), found.labels + 1000 * numbers)
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(values[found.segments])[None])
    elif isinstance(sample, DetDataSample):
        fields = {"bboxes": found.boxes, "scores": found.scores, "labels": found.labels}
        if found.masks is not None:
            fields["masks"] = found.masks
        tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
        sample.pred_instances = InstanceData(**tensors)
    else:
        assert found.label_map is not None
        label_map = torch.from_numpy(found.label_map.astype("int64"))
        sample.pred_sem_seg = PixelData(data=label_map[None])
