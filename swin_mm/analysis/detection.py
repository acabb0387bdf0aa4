"""Where a detector goes wrong: by class, by size, what for what.

Average precision is pycocotools'. Confusions and the errors of an image need matches across
classes, which COCO's rules do not have: there, detections above a score are matched to objects of
any class, pairs of the largest overlap first, each once.
"""

from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_mm.analysis.predictions import PredictionError, by_image, to_numpy
from swin_mm.structures import Objects

# Places in COCO's ranges of areas, after that of all: below 32^2 pixels, below 96^2, above.
SIZES = {1: "small", 2: "medium", 3: "large"}


@dataclass(frozen=True)
class DetectionData:
    """Ground truth and predictions of a data set, image by image."""

    classes: Sequence[str]
    category_ids: Sequence[int]  # COCO's number of each class
    image_ids: Sequence[int]  # COCO's number of each image
    image_paths: Sequence[str]
    truth: Sequence[Objects]  # with scores of 1
    found: Sequence[Objects]
    coco: COCO


class ImageErrors(NamedTuple):
    """Objects of an image found right or as another class, those missed, and false alarms."""

    image: int
    right: int
    confused: int
    missed: int
    invented: int

    @property
    def quality(self) -> float:
        """F1 of the image: 1 where nothing is wrong."""
        wrong = 2 * self.confused + self.missed + self.invented
        return 2 * self.right / (2 * self.right + wrong) if self.right or wrong else 1.0


def read_data(dataset: Any, entries: list[dict]) -> DetectionData:
    """Joins predictions, as `load_predictions` gives them, with a `CocoDataset` in test mode."""
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    image_ids = [info["img_id"] for info in infos]
    if any("pred_instances" not in entry or "img_id" not in entry for entry in entries):
        raise PredictionError("the predictions are not those of a detector: no pred_instances")
    entries = by_image(entries, lambda entry: entry["img_id"], image_ids)
    classes = dataset.metainfo["classes"]
    found = [_read_found(entry["pred_instances"]) for entry in entries]
    highest = max((objects.labels.max(initial=-1) for objects in found), default=-1)
    if highest >= len(classes):
        raise PredictionError(
            f"the predictions have label {highest}, but the data has {len(classes)} classes"
        )
    with redirect_stdout(StringIO()):  # pycocotools prints
        coco = COCO(dataset.ann_file)
    paths = [info["img_path"] for info in infos]
    truth = [_read_truth(info) for info in infos]
    return DetectionData(classes, dataset.cat_ids, image_ids, paths, truth, found, coco)


def _read_truth(info: dict) -> Objects:
    instances = info["instances"]
    masks = None
    if instances and all("mask" in instance for instance in instances):
        masks = [_encode(i["mask"], info["height"], info["width"]) for i in instances]
    return Objects(
        boxes=np.array([i["bbox"] for i in instances], dtype=float).reshape(-1, 4),
        labels=np.array([i["bbox_label"] for i in instances], dtype=int),
        scores=np.ones(len(instances)),
        is_crowd=np.array([i["ignore_flag"] for i in instances], dtype=bool),
        masks=masks,
    )


def _encode(mask: Any, height: int, width: int) -> dict:
    if isinstance(mask, list):
        return mask_utils.merge(mask_utils.frPyObjects(mask, height, width))
    return mask_utils.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def _read_found(instances: dict) -> Objects:
    labels = to_numpy(instances["labels"]).astype(int)
    return Objects(
        boxes=to_numpy(instances["bboxes"]).astype(float).reshape(-1, 4),
        labels=labels,
        scores=to_numpy(instances["scores"]).astype(float),
        is_crowd=np.zeros(len(labels), dtype=bool),
        masks=list(instances["masks"]) if "masks" in instances else None,
    )


def evaluate(data: DetectionData, kind: str) -> COCOeval | None:
    """Returns pycocotools' evaluation of `bbox` or `segm`; None if there is nothing to evaluate."""
    results = []
    for image_id, objects in zip(data.image_ids, data.found, strict=True):
        assert objects.boxes is not None and objects.scores is not None
        for index, (left, top, right, bottom) in enumerate(objects.boxes.tolist()):
            result = {
                "image_id": image_id,
                "category_id": data.category_ids[objects.labels[index]],
                "score": float(objects.scores[index]),
            }
            if kind == "bbox":
                result["bbox"] = [left, top, right - left, bottom - top]
            elif objects.masks is None:
                return None
            else:
                result["segmentation"] = objects.masks[index]
            results.append(result)
    has_masks = all(annotation.get("segmentation") for annotation in data.coco.anns.values())
    if not results or (kind == "segm" and not has_masks):
        return None
    with redirect_stdout(StringIO()):
        evaluation = COCOeval(data.coco, data.coco.loadRes(results), kind)
        evaluation.params.imgIds = list(data.image_ids)
        evaluation.params.catIds = list(data.category_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def class_precisions(evaluation: COCOeval, data: DetectionData) -> list[dict[str, Any]]:
    """Returns a row for each class: its name, numbers of objects, AP by size, AP50 and recall.

    Recall is the mean over overlaps; figures are NaN where there is no object to find.
    """
    rows = []
    precisions, recalls = (_known(evaluation.eval[name]) for name in ("precision", "recall"))
    counts = _count_objects(evaluation)
    for number, name in zip(data.category_ids, data.classes, strict=True):
        k = list(evaluation.params.catIds).index(number)
        precision = precisions[:, :, k, :, -1]  # (overlaps, recalls, sizes)
        row = {"class": name, "objects": int(counts[k, 0])}
        row |= {"AP": float(precision[..., 0].mean()), "AP50": float(precision[0, :, 0].mean())}
        row |= {f"AP {size}": float(precision[..., a].mean()) for a, size in SIZES.items()}
        row |= {"recall": float(recalls[:, k, 0, -1].mean())}
        rows.append(row | {f"{size} objects": int(counts[k, a]) for a, size in SIZES.items()})
    return rows


def precision_curves(
    evaluation: COCOeval, data: DetectionData
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Precision at each recall, over objects of all sizes.

    Returns:
        `(recalls,)`, the recalls; `(classes, recalls)`, precision at an overlap of 0.5, NaN for a
        class without objects; and means over the classes, `(recalls,)`, by overlap.
    """
    order = [list(evaluation.params.catIds).index(number) for number in data.category_ids]
    # (overlaps, recalls, classes)
    precision = _known(evaluation.eval["precision"][:, :, order, 0, -1])
    known = precision[..., ~np.isnan(precision[0, 0])]
    means = {
        "overlap 0.5": known[0].mean(-1),
        "overlap 0.75": known[5].mean(-1),
        "overlaps 0.5 to 0.95": known.mean((0, 2)),
    }
    return evaluation.params.recThrs, precision[0].T, means


def _known(values: np.ndarray) -> np.ndarray:
    """NaN for pycocotools' -1, which stands where a class has no object of a size."""
    return np.where(values > -1, values, np.nan)


def _count_objects(evaluation: COCOeval) -> np.ndarray:
    """Objects to be found, `(classes, sizes)`."""
    params = evaluation.params
    # One entry for each class, size and image, in this order; None where there is nothing at all.
    counts = [0 if e is None else (~e["gtIgnore"].astype(bool)).sum() for e in evaluation.evalImgs]
    return np.reshape(counts, (len(params.catIds), len(params.areaRng), -1)).sum(-1)


def count_confusions(
    data: DetectionData, min_score: float = 0.3, min_overlap: float = 0.5
) -> tuple[np.ndarray, list[ImageErrors]]:
    """Counts what is taken for what, by the pairs of `match`.

    Returns:
        `(classes + 1, classes + 1)`, objects by true and by predicted class, the last of each being
        the background: objects missed, and detections of nothing; and the errors of each image.
    """
    count = len(data.classes)
    matrix = np.zeros((count + 1, count + 1), dtype=int)
    errors = []
    for index, (truth, found) in enumerate(zip(data.truth, data.found, strict=True)):
        own = np.zeros_like(matrix)
        for true, predicted in match(truth, found, min_score, min_overlap):
            row = count if true is None else truth.labels[true]
            column = count if predicted is None else found.labels[predicted]
            own[row, column] += 1
        right = int(np.trace(own[:count, :count]))
        confused = int(own[:count, :count].sum()) - right
        missed, invented = int(own[:count, -1].sum()), int(own[-1].sum())
        errors.append(ImageErrors(index, right, confused, missed, invented))
        matrix += own
    return matrix, errors


def match(
    truth: Objects, found: Objects, min_score: float, min_overlap: float
) -> list[tuple[int | None, int | None]]:
    """Pairs objects of an image with detections of whatever class.

    Detections below `min_score` do not count. Pairs overlap by `min_overlap` at least.

    Returns:
        Pairs (object, detection), None for an object not found or a detection of nothing. Pairs of
        the largest overlap come first; of equal ones that of the right class, then of the higher
        score. Detections within a crowd are left out, and so is the crowd.
    """
    assert truth.boxes is not None and truth.is_crowd is not None
    assert found.boxes is not None and found.scores is not None
    chosen = np.flatnonzero(found.scores >= min_score)
    overlaps = _overlaps(found.boxes[chosen], truth.boxes, truth.is_crowd)  # (chosen, truth)
    is_wrong = truth.labels != found.labels[chosen, None]
    candidates = [
        (-overlaps[d, t], is_wrong[d, t], -found.scores[chosen[d]], int(t), int(chosen[d]))
        for d, t in np.argwhere((overlaps >= min_overlap) & ~truth.is_crowd)
    ]
    pairs: list[tuple[int | None, int | None]] = []
    left, unused = set(np.flatnonzero(~truth.is_crowd).tolist()), set(chosen.tolist())
    for *_, true, predicted in sorted(candidates):
        if true in left and predicted in unused:
            left.remove(true)
            unused.remove(predicted)
            pairs.append((true, predicted))
    crowds = overlaps[:, truth.is_crowd]
    unused -= set(chosen[(crowds >= min_overlap).any(1)].tolist())
    pairs += [(true, None) for true in sorted(left)]
    return pairs + [(None, predicted) for predicted in sorted(unused)]


def _overlaps(found: np.ndarray, truth: np.ndarray, is_crowd: np.ndarray) -> np.ndarray:
    """Intersection over union `(found, truth)`; of a crowd, over the detection."""
    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth)))
    found, truth = (np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]) for b in (found, truth))
    return np.asarray(mask_utils.iou(found, truth, is_crowd.astype(np.uint8)))
