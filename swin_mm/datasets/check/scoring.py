"""Checks that the COCO metric of a config can score against the annotations."""

import os

from mmengine.config import Config

from swin_mm.configs import bare_type
from swin_mm.datasets.check.objects import has_mask
from swin_mm.datasets.check.source import Source
from swin_mm.datasets.check.summary import DatasetError, SplitSummary, examples


def find_unscorable(coco: dict) -> dict[str, str]:
    """Returns what mmdet's COCO metric fails on or gets wrong, though training takes it.

    Args:
        coco: Annotations whose form is in order.

    Returns:
        `"bbox"`, for every metric, and `"segm"`, for masks, to what is wrong, in words. Empty if
        nothing is.
    """
    found = {}
    annotations = coco["annotations"]
    odd = [a["id"] for a in annotations if type(a["id"]) is not int or a["id"] <= 0]
    bare = [a["id"] for a in annotations if a.get("iscrowd") is None]
    if odd:
        found["bbox"] = (
            f"{len(odd)} annotation ids are not whole numbers from 1 on, such as {examples(odd)}: "
            "an object with the id 0 never counts as found, and text fails"
        )
    elif bare:
        found["bbox"] = f"{len(bare)} annotations have no iscrowd: {examples(bare)}"
    flat = [
        a["id"]
        for a in annotations
        if isinstance(a.get("segmentation"), list)
        and not all(has_mask([polygon]) for polygon in a["segmentation"] or [[]])
    ]
    if flat:
        found["segm"] = (
            f"{len(flat)} masks have polygons of fewer than three points: those of annotations "
            f"{examples(flat)}"
        )
    return found


def check_evaluator(cfg: Config, split: str, sources: list[Source], summary: SplitSummary) -> None:
    """Checks that COCO metrics score against the data that is predicted on, and can read it.

    Args:
        cfg: Whole config.
        split: `"val"` or `"test"`; nothing is checked for `"train"`.
        sources: Data sets of its loader.
        summary: What was found in them.

    Raises:
        DatasetError: They do not.
    """
    if split == "train" or len(sources) != 1 or not sources[0].reads_like("CocoDataset"):
        return
    evaluators = cfg.get(f"{split}_evaluator") or []
    several = isinstance(evaluators, (list, tuple))
    data = sources[0].path(sources[0].argument("ann_file") or "")
    for index, evaluator in enumerate(evaluators if several else [evaluators]):
        used = evaluator.get("ann_file")
        if bare_type(evaluator) != "CocoMetric" or not used:
            continue
        key = f"{split}_evaluator.{index}" if several else f"{split}_evaluator"
        if os.path.realpath(used) != os.path.realpath(data):
            raise DatasetError(
                f"{key}.ann_file={used} is not the file that {split}_dataloader reads, {data}: "
                f"--cfg-options {key}.ann_file={data}"
            )
        if _is_ours(evaluator):
            continue
        metrics = evaluator.get("metric", "bbox")
        scores_masks = "segm" in ([metrics] if isinstance(metrics, str) else metrics)
        kinds = ("bbox", "segm") if scores_masks else ("bbox",)
        if wrong := [summary.unscorable[kind] for kind in kinds if kind in summary.unscorable]:
            raise DatasetError(
                f"{data}: {'; also, '.join(wrong)}; mmdet's CocoMetric cannot score that: "
                f"--cfg-options {key}.type=swin_mm.CocoMetric"
            )


def _is_ours(evaluator: dict) -> bool:
    kind = evaluator["type"]
    return (kind if isinstance(kind, str) else kind.__module__).startswith("swin_mm.")
