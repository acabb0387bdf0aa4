"""What must come of annotations that the checks let through: objects, scores, labels."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mutate_annotations import CLASSES
from pycocotools import mask as coco_mask

from swin_mm.datasets.check import DatasetSummary
from swin_mm.evaluation import coco_metric

LARGEST_AREA = 1e10  # that COCO's evaluation counts
SEGMENTATION_CLASSES = ("grass", "road", "sky")


class WrongResult(Exception):
    """A result other than it must be."""


def check_samples(cfg: Config, summary: DatasetSummary, coco: dict) -> None:
    """Loads all samples, and compares their objects with those that the check counted."""
    init_default_scope("mmdet")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    found: Counter[str] = Counter()
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        objects = sample.gt_instances
        found.update(CLASSES[label] for label in objects.labels.tolist())
        if not torch.isfinite(objects.bboxes.tensor).all():
            raise WrongResult(f"boxes {objects.bboxes.tensor}")
        if "masks" in objects and objects.masks.to_ndarray().shape[1:] != sample.img_shape[:2]:
            raise WrongResult(f"masks of {objects.masks.to_ndarray().shape}, {sample.img_shape}")
    wanted = {name: count for name, count in summary.splits["train"].learned.items() if count}
    if wanted != found:
        raise WrongResult(f"the check counted {wanted}, the samples have {dict(found)}")


def check_scores(cfg: Config, coco: dict) -> None:
    """Scores the annotations as predictions with each metric, and compares with what must come."""
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    ids = [dataset.get_data_info(index)["img_id"] for index in range(len(dataset))]
    metrics = cfg.val_evaluator.metric
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        predicted, wanted = predict_annotations(coco, metric)
        scored = []
        for why in (lambda _: "asked for", coco_metric.why_not_faster):
            scored.append(score(cfg.val_evaluator, metric, ids, predicted, why))
        for values in scored:
            if abs(values[f"{metric}_mAP"] - wanted) > 1e-3:
                raise WrongResult(f"{metric}_mAP={values[f'{metric}_mAP']}, not {wanted}")
        if scored[0] != scored[1]:
            raise WrongResult(f"pycocotools {scored[0]}, faster-coco-eval {scored[1]}")


def score(
    evaluator: dict, metric: str, ids: list, predicted: dict, why: Callable
) -> dict[str, float]:
    """Scores predictions, with pycocotools where `why` gives a reason."""
    before, coco_metric.why_not_faster = coco_metric.why_not_faster, why
    try:
        scorer = METRICS.build({**evaluator, "metric": metric})
        scorer.dataset_meta = {"classes": CLASSES}
        for image_id in ids:
            instances = predicted.get(image_id, [])
            columns = list(zip(*instances, strict=True)) or [(), (), ()]
            found = {
                "bboxes": torch.tensor(columns[0], dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor(columns[1], dtype=torch.int64),
                "scores": torch.ones(len(instances)),
                "masks": list(columns[2]),
            }
            scorer.process({}, [{"img_id": image_id, "ori_shape": (1, 1), "pred_instances": found}])
        return dict(scorer.compute_metrics(scorer.results))
    finally:
        coco_metric.why_not_faster = before


def predict_annotations(coco: dict, metric: str) -> tuple[dict, float]:
    """Predictions equal to the annotations, and the average precision that they must have.

    Objects that no prediction can overlap, such as boxes without area, are not predicted and stay
    missed; what COCO's evaluation ignores is left out of both.
    """
    names = {category["id"]: category["name"] for category in coco["categories"]}
    images = {image["id"]: image for image in coco["images"]}
    predicted: dict = {}
    objects, matched = Counter(), Counter()
    for item in coco["annotations"]:
        label = names[item["category_id"]]
        if label not in CLASSES or item.get("iscrowd") or not 0 <= item["area"] <= LARGEST_AREA:
            continue
        runs = {"size": [1, 1], "counts": "01"}
        if metric == "segm":
            runs = encode(item.get("segmentation"), images[item["image_id"]])
            if runs is None:  # no mask at all
                continue
        objects[label] += 1
        left, top, width, height = item["bbox"]
        is_real = (
            coco_mask.area(runs) if metric == "segm" else min(width, height) > 0 < width * height
        )
        if is_real:
            matched[label] += 1
            box = [left, top, left + width, top + height]
            predicted.setdefault(item["image_id"], []).append((box, CLASSES.index(label), runs))
    thresholds = np.linspace(0, 1, 101)
    parts = [(thresholds <= matched[name] / count).mean() for name, count in objects.items()]
    return predicted, float(np.mean(parts)) if parts else -1.0


def encode(segmentation: object, image: dict) -> dict | None:
    """A mask as run lengths; None where it has no polygon of three points."""
    size = image["height"], image["width"]
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, *size)
        return {**segmentation, "counts": segmentation["counts"].encode()}
    polygons = [p for p in segmentation or () if len(p) >= 6 and len(p) % 2 == 0]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *size)) if polygons else None


def check_labels(cfg: Config, summary: DatasetSummary) -> None:
    """Loads all label maps: values, shares of the classes and mIoU must be right."""
    init_default_scope("mmseg")
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    scorer = METRICS.build({"type": "IoUMetric", "iou_metrics": ["mIoU"]})
    scorer.dataset_meta = {"classes": SEGMENTATION_CLASSES}
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        packed = dataset[index]
        labels = packed["data_samples"].gt_sem_seg.data
        if labels.shape[1:] != packed["inputs"].shape[1:]:
            raise WrongResult(f"labels {labels.shape} of an image {packed['inputs'].shape}")
        counts += np.bincount(labels.flatten().numpy(), minlength=256)
        right = {"pred_sem_seg": {"data": labels}, "gt_sem_seg": {"data": labels}}
        scorer.process({}, [right])
    number = len(SEGMENTATION_CLASSES)
    if counts[number:255].any():
        raise WrongResult(f"labels {np.flatnonzero(counts)}")
    shares = counts[:number] / max(1, counts[:number].sum())
    if not np.allclose(shares, [*summary.splits["train"].per_class.values()]):
        raise WrongResult(f"shares {shares}, not {summary.splits['train'].per_class}")
    metrics = scorer.compute_metrics(scorer.results)
    if counts[:number].any() and metrics["mIoU"] != 100:
        raise WrongResult(f"mIoU={metrics['mIoU']}")
