"""COCO's evaluation by faster-coco-eval where it is installed, else by pycocotools.

The numbers are the same: faster-coco-eval has the matching and the curves in C++, and the summary
is pycocotools' own of those curves.
"""

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import encode

PACKAGE = "faster_coco_eval"
STATS = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
SIZES = ("s", "m", "l")


def why_not_faster(coco: COCO) -> str | None:
    """Returns why pycocotools is to evaluate these annotations; None where faster-coco-eval can."""
    if find_spec(PACKAGE) is None:
        return "faster-coco-eval is not installed: pip install faster-coco-eval"
    if any(type(image_id) is not int or image_id < 0 for image_id in coco.imgs):
        return "faster-coco-eval needs whole numbers from 0 on as image ids"
    if any(type(category_id) is not int for category_id in coco.cats):
        return "faster-coco-eval needs whole numbers as category ids"
    return None


def make_scorable(coco: COCO, iou_type: str) -> COCO:
    """Returns annotations that both packages read, with what training takes for granted.

    Ids are numbered from 1 if some are not positive whole numbers or are used twice: both packages
    take a match with the id 0 for no match. A missing `iscrowd` is 0. For masks (`iou_type` is
    `"segm"`), polygons of fewer than three points are dropped, as mmdet does in training; an object
    without any other has no mask, and is ignored as a crowd is.
    """
    given = coco.dataset.get("annotations", [])
    completed = [_complete(annotation, coco, iou_type) for annotation in given]
    ids = [annotation["id"] for annotation in given]
    positive = all(type(number) is int and number > 0 for number in ids)
    if not positive or len(set(ids)) < len(ids):
        completed = [{**a, "id": number} for number, a in enumerate(completed, start=1)]
    elif all(new is old for new, old in zip(completed, given, strict=True)):
        return coco
    scorable = COCO()
    scorable.dataset = {**coco.dataset, "annotations": completed}
    with redirect_stdout(io.StringIO()):
        scorable.createIndex()
    return scorable


def _complete(annotation: dict, coco: COCO, iou_type: str) -> dict:
    changes: dict[str, Any] = {}
    if annotation.get("iscrowd") is None:
        changes["iscrowd"] = 0
    mask: Any = annotation.get("segmentation")
    if iou_type == "segm" and not isinstance(mask, dict):
        polygons = [p for p in mask or () if len(p) >= 6 and len(p) % 2 == 0]
        if not polygons:
            image = coco.imgs[annotation["image_id"]]
            filled = _fill_box(annotation["bbox"], image["height"], image["width"])
            changes.update(segmentation=filled, iscrowd=1)
        elif len(polygons) < len(mask):
            changes["segmentation"] = polygons
    return {**annotation, **changes} if changes else annotation


def _fill_box(box: Sequence[float], height: int, width: int) -> dict:
    """Run lengths of all pixels that a box, left, top, width and height, touches."""
    left, top = (max(0, math.floor(start)) for start in box[:2])
    right, bottom = (math.ceil(box[i] + box[i + 2]) for i in (0, 1))
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[top : max(0, bottom), left : max(0, right)] = 1
    return encode(mask)


def evaluate(
    coco: COCO,
    found: list[dict],
    iou_type: str,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    max_dets: Sequence[int],
    iou_thrs: Sequence[float],
    faster: bool,
    use_categories: bool = True,
) -> COCOeval:
    """Evaluates detections and returns the curves, and `stats` where COCO's table can be made.

    Args:
        coco: The annotations.
        found: As in a COCO file of results, at least one; they are added to.
        iou_type: `"bbox"` or `"segm"`. For the latter without `bbox`, else sizes are those of
            boxes.
        category_ids: Which to evaluate.
        image_ids: Which to evaluate.
        max_dets: Detections an image that count.
        iou_thrs: Overlaps from which a detection matches.
        faster: Whether faster-coco-eval does it; see `why_not_faster`.
        use_categories: Whether a detection must have the class of what it matches.
    """
    truth: Any = make_scorable(coco, iou_type)
    kind: Any = COCOeval
    if faster:
        import faster_coco_eval

        truth, kind = faster_coco_eval.COCO(truth.dataset), faster_coco_eval.COCOeval_faster
    asked: dict[str, Any] = dict(catIds=list(category_ids), imgIds=list(image_ids))
    asked |= dict(maxDets=list(max_dets), iouThrs=np.atleast_1d(iou_thrs))
    with redirect_stdout(io.StringIO()):
        evaluation = kind(truth, truth.loadRes(found), iou_type)
        vars(evaluation.params).update(asked, useCats=int(use_categories))
        evaluation.evaluate()
        evaluation.accumulate()
    if faster:
        curves, params = evaluation.eval, evaluation.params
        evaluation = COCOeval(iouType=iou_type)
        vars(evaluation.params).update({name: getattr(params, name) for name in asked})
        evaluation.eval = curves
    coco_table(evaluation)  # fills `stats`
    return evaluation


def coco_table(evaluation: COCOeval) -> str:
    """COCO's table of an evaluation, as pycocotools prints it; empty where it cannot."""
    max_dets = evaluation.params.maxDets
    if len(max_dets) != 3 or 100 not in max_dets:
        return ""
    printed = io.StringIO()
    with redirect_stdout(printed):
        evaluation.summarize()
    return printed.getvalue()


def summarize(evaluation: COCOeval) -> dict[str, float]:
    """Computes the figures of COCO's table, and names recalls after the detections they count.

    Returns:
        `STATS`, `AR@N` for each number of detections, and `AR_s@N`, `AR_m@N`, `AR_l@N` for the
        greatest; -1 where the annotations have nothing of a kind. `mAP` counts 100 detections an
        image, as pycocotools does, or the greatest number where 100 is not asked for.
    """
    precision = evaluation.eval["precision"]  # (overlap, recall, class, size, detections)
    recall = evaluation.eval["recall"]  # (overlap, class, size, detections)
    max_dets = list(evaluation.params.maxDets)
    hundred = max_dets.index(100) if 100 in max_dets else -1
    parts = [precision[..., 0, hundred]]
    parts += [precision[at][..., 0, -1] for at in overlap_places(evaluation)]
    parts += [precision[..., size, -1] for size in (1, 2, 3)]
    values = dict(zip(STATS, map(mean_present, parts), strict=True))
    for place, number in enumerate(max_dets):
        values[f"AR@{number}"] = mean_present(recall[..., 0, place])
    for size, name in enumerate(SIZES, start=1):
        values[f"AR_{name}@{max_dets[-1]}"] = mean_present(recall[..., size, -1])
    return values


def overlap_places(evaluation: COCOeval) -> list[np.ndarray]:
    """Where the curves of overlaps 0.5 and 0.75 are, none or one place each."""
    thresholds = evaluation.params.iouThrs
    return [np.flatnonzero(np.isclose(thresholds, overlap)) for overlap in (0.5, 0.75)]


def mean_present(values: np.ndarray, otherwise: float = -1.0) -> float:
    """Mean of what is there: COCO has -1 where there is nothing."""
    present = values[values > -1]
    return np.mean(present) if present.size else otherwise
