"""Predicts image files with a trained detector or segmentor."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_state_dict
from mmengine.structures import BaseDataElement
from torch import nn

from swin_mm.configs import ConfigError, bare_type, innermost_dataset
from swin_mm.engine.hooks.exact_weights import watch_weights
from swin_mm.heads.ops.encode_masks import encode_masks
from swin_mm.inference.panoptic import read_segments
from swin_mm.inference.run_length import RunLengthMasks
from swin_mm.inference.sliced import Progress, SlicedInference
from swin_mm.structures import Content, Objects, Run


class Predictor:
    """A trained model, for image files without annotations.

    Args:
        cfg: Config of the model. Images go through its test pipeline.
        scope: What the config is for, `mmdet` or `mmseg`.
        checkpoint: File or address of the trained weights.
        device: Such as `cpu` or `cuda:0`.

    Attributes:
        classes: Their names.
        meta: What else is known of the data that the model was trained on, such as a `palette`.

    Raises:
        CheckpointError: The checkpoint is of another model.
        ConfigError: Neither checkpoint nor config names the classes.
    """

    def __init__(self, cfg: Config, scope: str, checkpoint: str, device: str) -> None:
        init_default_scope(scope)
        dataset = innermost_dataset(cfg.test_dataloader.dataset)
        self.pipeline = Compose(without_annotations(dataset.pipeline))
        model, self.meta = load_model(cfg, checkpoint)
        self.classes: Sequence[str] = self.meta["classes"]
        self.model: BaseModel = model.to(device).eval()

    def predict(
        self, path: str | Path, min_score: float = 0.3, progress: Progress | None = None
    ) -> Content:
        """Predicts one image.

        Args:
            path: The image.
            min_score: Detections below this score are left out.
            progress: Called with the number of slices done and of all, or with 1 and 1.

        Returns:
            The objects of a detector, the segments of a panoptic one, or the label map `(H, W)` of
            a segmentor, indices of classes.

        Raises:
            ValueError: The model predicts none of these.
        """
        data = self.pipeline({"img_path": str(path), "img_id": 0})
        if isinstance(self.model, SlicedInference):
            sample = data["data_samples"]
            image = data["inputs"].permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
            sample.pred_instances = self.model.predict_image(image, sample.metainfo, progress)
        else:
            with torch.no_grad():
                (sample,) = self.model.test_step(pseudo_collate([data]))
            if progress is not None:
                progress(1, 1)
        return read_prediction(sample, min_score, len(self.classes))


def load_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict[str, Any]]:
    """Builds the model of a config, whose scope is the default one, and loads its weights.

    Returns:
        The model, on the CPU, and what is known of its data, such as `classes`.

    Raises:
        CheckpointError: The checkpoint is of another model.
        ConfigError: Neither checkpoint nor config names the classes.
    """
    model = MODELS.build(cfg.model)
    dataset = innermost_dataset(cfg.test_dataloader.dataset)
    return model, _find_meta(_load_weights(model, checkpoint), dataset)


def without_annotations(steps: Sequence[dict]) -> list[dict]:
    """Leaves out of a pipeline what loads annotations, also within `TestTimeAug`."""
    kept = []
    for step in steps:
        if "Annotations" in bare_type(step):
            continue
        if "transforms" in step:
            branches = (without_annotations(branch) for branch in step["transforms"])
            step = dict(step, transforms=[branch for branch in branches if branch])
        kept.append(step)
    return kept


def read_prediction(sample: BaseDataElement, min_score: float, num_classes: int) -> Content:
    """Takes over what was predicted in an image.

    Args:
        sample: With `pred_panoptic_seg`, `pred_instances` or `pred_sem_seg`; the first is taken.
        min_score: Detections below this score are left out.
        num_classes: Number of classes.

    Raises:
        ValueError: There is none of these.
    """
    if "pred_panoptic_seg" in sample:
        return read_segments(sample.pred_panoptic_seg, num_classes)
    if "pred_instances" in sample and "bboxes" in sample.pred_instances:
        found = sample.pred_instances
        found = found[found.scores >= min_score]
        found = found[found.scores.argsort(descending=True, stable=True)].cpu()
        return Objects(
            found.labels.numpy(),
            found.bboxes.numpy(),
            found.scores.numpy(),
            _to_runs(found.masks) if "masks" in found else None,
        )
    if "pred_sem_seg" in sample:
        return sample.pred_sem_seg.data.squeeze(0).cpu().numpy()  # (H, W)
    raise ValueError(
        f"the model predicts neither boxes nor a label map, but {', '.join(sample.keys())}"
    )


def _to_runs(masks: RunLengthMasks | torch.Tensor) -> list[Run]:
    if isinstance(masks, RunLengthMasks):
        return masks.runs
    return encode_masks(masks)


def _load_weights(model: nn.Module, file: str) -> Mapping[str, Any]:
    """Loads all of a model's weights; returns the checkpoint."""
    checkpoint = CheckpointLoader.load_checkpoint(file, map_location="cpu")
    handle = watch_weights(model, checkpoint)
    try:
        inner = model.module if isinstance(model, BaseTTAModel) else model
        load_state_dict(inner, checkpoint.get("state_dict", checkpoint), strict=False)
    finally:
        handle.remove()
    return checkpoint


def _find_meta(checkpoint: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Finds what the classes are: those of the training, else those of the config's test data."""
    meta = checkpoint.get("meta", {})
    trained_on = meta.get("dataset_meta") or {}
    if "CLASSES" in meta:  # of mmdet 2 and mmseg 0
        trained_on = {"classes": meta["CLASSES"], "palette": meta.get("PALETTE")}
    known = getattr(DATASETS.get(dataset["type"]), "METAINFO", {})
    found = trained_on or {**known, **dataset.get("metainfo", {})}
    found = {key.lower(): value for key, value in found.items()}
    if not found.get("classes"):
        raise ConfigError(
            "neither the checkpoint nor the config names the classes: set "
            "test_dataloader.dataset.metainfo=dict(classes=(...))"
        )
    return found
