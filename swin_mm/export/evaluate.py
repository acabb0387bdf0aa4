"""What an exported file reaches on a config's validation data."""

from itertools import islice
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from swin_mm.configs import find_scope
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
        self.evaluator, self.scope = cfg.val_evaluator, find_scope(cfg)
        with DefaultScope.overwrite_default_scope(self.scope):
            self.dataset: Any = DATASETS.build(cfg.val_dataloader.dataset)
        self.count = min(max_images, len(self.dataset))

    def __call__(self, file: ExportedModel) -> dict[str, float]:
        """Measures a file: metrics by name."""
        with DefaultScope.overwrite_default_scope(self.scope):
            evaluator = Evaluator(self.evaluator)
        evaluator.dataset_meta = self.dataset.metainfo
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


def _predict(file: ExportedModel, sample: Any, reader: Reader) -> None:
    """Puts what a file finds in an image into its data sample."""
    found = file.predict(reader.read(sample.img_path), score_thr=0.0)
    if isinstance(sample, DetDataSample):
        fields = {"bboxes": found.boxes, "scores": found.scores, "labels": found.labels}
        if found.masks is not None:
            fields["masks"] = found.masks
        tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
        sample.pred_instances = InstanceData(**tensors)
    else:
        assert found.label_map is not None
        label_map = torch.from_numpy(found.label_map.astype("int64"))
        sample.pred_sem_seg = PixelData(data=label_map[None])
