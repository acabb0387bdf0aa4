"""COCO's evaluation by faster-coco-eval where it is installed, else by pycocotools.

The numbers are the same: faster-coco-eval has the matching and the curves in C++, and the summary
is pycocotools' own of those curves.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

PACKAGE = "faster_coco_eval"


def why_not_faster(coco: COCO) -> str | None:
    """Returns why pycocotools is to evaluate; None where faster-coco-eval can.

    Args:
        coco: The annotations.
    """
    if find_spec(PACKAGE) is None:
        return "faster-coco-eval is not installed: pip install faster-coco-eval"
    if any(type(image_id) is not int for image_id in coco.imgs):
        return "faster-coco-eval needs whole numbers as image ids"
    if 0 in coco.anns:  # both take a match with it for none, each in its own way
        return "the annotations have an id 0"
    return None


def evaluate(
    coco: COCO,
    found: list[dict],
    iou_type: str,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    max_dets: Sequence[int],
    iou_thrs: Sequence[float],
    faster: bool,
) -> COCOeval:
    """Evaluates detections, prints COCO's table and returns the curves and `stats`.

    Args:
        coco: The annotations.
        found: As in a COCO file of results, at least one; they are added to.
        iou_type: `"bbox"` or `"segm"`. For the latter without `bbox`, else sizes are those of
            boxes.
        category_ids: Which to evaluate.
        image_ids: Which to evaluate.
        max_dets: Detections an image that count, three numbers.
        iou_thrs: Overlaps from which a detection matches.
        faster: Whether faster-coco-eval does it; see `why_not_faster`.
    """
    if not faster:
        evaluation = COCOeval(coco, coco.loadRes(found), iou_type)
        _set_params(evaluation, category_ids, image_ids, max_dets, iou_thrs)
        evaluation.evaluate()
        evaluation.accumulate()
    else:
        import faster_coco_eval

        truth = faster_coco_eval.COCO(coco.dataset)
        engine = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(found), iou_type)
        _set_params(engine, category_ids, image_ids, max_dets, iou_thrs)
        engine.evaluate()
        engine.accumulate()
        evaluation = COCOeval(iouType=iou_type)
        params = engine.params
        _set_params(evaluation, params.catIds, params.imgIds, params.maxDets, iou_thrs)
        evaluation.eval = engine.eval
    evaluation.summarize()
    return evaluation


def _set_params(
    evaluation: object,
    category_ids: Sequence[int],
    image_ids: Sequence[int],
    max_dets: Sequence[int],
    iou_thrs: Sequence[float],
) -> None:
    params = evaluation.params
    params.catIds, params.imgIds = list(category_ids), list(image_ids)
    params.maxDets, params.iouThrs = list(max_dets), np.asarray(iou_thrs)
