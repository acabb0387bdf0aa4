"""Puts an analysis together: numbers, pictures and the worst images of a set of predictions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from swin_mm.analysis import detection, segmentation
from swin_mm.analysis.calibration import Calibration
from swin_mm.analysis.figures import draw_bars, draw_calibration, draw_confusions, draw_curves
from swin_mm.analysis.page import Analysis, Section, Table
from swin_mm.analysis.predictions import PredictionError
from swin_mm.analysis.segmentation import mean_of_known
from swin_mm.datasets.picture import Row, choose_palette, prediction_sheet
from swin_mm.datasets.reader import Reader
from swin_mm.structures import Objects

BACKGROUND = "background"
MAX_CONFUSIONS = 12
KINDS = {"bbox": "box", "segm": "mask"}


def analyse_detection(
    dataset: Any, entries: list[dict], min_score: float, min_overlap: float, worst: int
) -> Analysis:
    """Analyses the predictions of a detector.

    Args:
        dataset: A `CocoDataset` of mmdet, in test mode.
        entries: Predictions as `load_predictions` gives them.
        min_score: Detections below it are neither confused nor drawn.
        min_overlap: Boxes that overlap less are not the same object.
        worst: How many images to draw.

    Raises:
        PredictionError: The predictions do not fit the data, or nothing is predicted.
    """
    data = detection.read_data(dataset, entries)
    crowds = [truth.is_crowd for truth in data.truth if truth.is_crowd is not None]
    scores = [found.scores for found in data.found if found.scores is not None]
    facts: dict[str, Any] = {
        "images": len(data.image_ids),
        "objects": sum(int((~flags).sum()) for flags in crowds),
        "detections": sum(len(found.labels) for found in data.found),
        f"detections of score {min_score:g} and above": sum(
            int((values >= min_score).sum()) for values in scores
        ),
    }
    evaluations = {kind: detection.evaluate(data, kind) for kind in KINDS}
    if evaluations["bbox"] is None:
        raise PredictionError("there is not one detection in the predictions")
    sections = []
    for kind, evaluation in evaluations.items():
        if evaluation is not None:
            rows = detection.class_precisions(evaluation, data)
            what = KINDS[kind]
            for name in ("AP", "AP50"):
                facts[f"{what} {name}"] = mean_of_known([row[name] for row in rows])
            sections += [_section_of_classes(kind, rows), _section_of_curve(kind, evaluation, data)]
    calibration = detection.calibrate(evaluations["bbox"])
    facts["calibration error of scores"] = calibration.error
    matrix, errors = detection.count_confusions(data, min_score, min_overlap)
    sections += [
        _section_of_confusions(
            matrix,
            [*data.classes, BACKGROUND],
            "objects",
            f"Detections of score {min_score:g} and above, matched to objects whose boxes overlap "
            f"by {min_overlap:g} or more, whatever their class. Predicted as background: missed. "
            "Truly background: detections of nothing.",
        ),
        Section(
            "calibration",
            "Calibration of scores",
            "How many of the detections of a score are right (same class, boxes overlap by 0.5), "
            "in bins of 0.1; on the dashed line, a score is the probability of being right. "
            "Dots stand at the mean score of their bin.",
            picture=draw_calibration(calibration),
        ),
        _section_of_worst_detections(dataset, data, errors, min_score, worst),
    ]
    return Analysis("Where the detector goes wrong", facts, sections)


def _section_of_classes(kind: str, rows: Sequence[dict[str, Any]]) -> Section:
    total: dict[str, Any] = {"class": "all"}
    for head in list(rows[0])[1:]:
        column = [row[head] for row in rows]
        total[head] = sum(column) if head.endswith("objects") else mean_of_known(column)
    what = KINDS[kind]
    return Section(
        f"{what}_precision",
        f"Average precision of {'boxes' if what == 'box' else 'masks'}",
        "As COCO measures it. Small is below 32 x 32 pixels, large above 96 x 96.",
        Table.of([*rows, total]),
        draw_bars([row["AP"] for row in rows], [row["class"] for row in rows], f"{what} AP"),
    )


def _section_of_curve(kind: str, evaluation: Any, data: detection.DetectionData) -> Section:
    recalls, curves, means = detection.precision_curves(evaluation, data)
    return Section(
        f"{KINDS[kind]}_precision_by_recall",
        f"Precision by recall of {'boxes' if kind == 'bbox' else 'masks'}",
        "Thin lines are classes at an overlap of 0.5; thick lines are means over the classes. The "
        "area below a line is its average precision.",
        picture=draw_curves(recalls, curves, data.classes, means),
    )


def _section_of_confusions(
    matrix: np.ndarray, names: Sequence[str], unit: str, note: str
) -> Section:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    rows = []
    for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[row, column]:
            count, share = int(wrong[row, column]), float(wrong[row, column] / matrix[row].sum())
            rows.append([names[row], names[column], count, share])
    return Section(
        "confusions",
        "What is taken for what",
        note,
        Table(["true", "predicted", unit, "share of the true class"], rows),
        draw_confusions(matrix, names, unit),
    )


def _section_of_worst_detections(
    dataset: Any,
    data: detection.DetectionData,
    errors: Sequence[detection.ImageErrors],
    min_score: float,
    worst: int,
) -> Section:
    def count(error: detection.ImageErrors) -> int:
        return error.confused + error.missed + error.invented

    chosen = sorted(errors, key=lambda error: (error.quality, -count(error)))[:worst]
    chosen = [error for error in chosen if count(error)]
    rows = [
        [Path(data.image_paths[error.image]).name, error.quality, *error[1:]] for error in chosen
    ]

    def make_row(error: detection.ImageErrors) -> Row:
        image = Reader.of(dataset).picture(data.image_paths[error.image])
        truth, found = data.truth[error.image], data.found[error.image]
        has_masks = found.masks is not None and (truth.masks is not None or not len(truth.labels))
        return Row(image, _to_instances(truth, has_masks), _to_instances(found, has_masks, True))

    palette = choose_palette(dataset.metainfo)
    return Section(
        "worst",
        "Worst images",
        f"By the F1 of detections of score {min_score:g} and above: 1 is without fault. Ground "
        "truth is on the left, what was found on the right.",
        Table(["image", "F1", "right", "wrong class", "missed", "of nothing"], rows),
        images=_draw_images(
            chosen, [str(row[0]) for row in rows], make_row, data.classes, palette, min_score
        ),
    )


def _to_instances(objects: Objects, has_masks: bool, scored: bool = False) -> Objects:
    masks = [*map(_as_bytes, objects.masks)] if has_masks and objects.masks else None
    return Objects(objects.labels, objects.boxes, objects.scores if scored else None, masks)


def _as_bytes(mask: dict) -> dict:
    counts = mask["counts"]
    return {**mask, "counts": counts.encode()} if isinstance(counts, str) else mask


def analyse_segmentation(dataset: Any, entries: list[dict], worst: int) -> Analysis:
    """Analyses the predictions of a segmentor.

    Args:
        dataset: A `BaseSegDataset` of mmseg, in test mode.
        entries: Predictions as `load_predictions` gives them.
        worst: How many images to draw.

    Raises:
        PredictionError: The predictions do not fit the data.
    """
    data = segmentation.read_data(dataset, entries)
    matrix, qualities = segmentation.count_confusions(data)
    rows = segmentation.class_overlaps(matrix, data.classes)
    facts = {
        "images": len(data.image_paths),
        "mIoU": mean_of_known([row["IoU"] for row in rows]),
        "mean recall of classes": mean_of_known([row["recall"] for row in rows]),
        "pixels right": float(np.trace(matrix) / max(1, matrix.sum())),
    }
    calibration = segmentation.calibrate(data)
    if calibration is not None:
        facts["calibration error of pixels"] = calibration.error
    chosen = [i for i in np.argsort(qualities, kind="stable")[:worst] if qualities[i] < 1]

    named = [(i, Path(data.image_paths[i]).name) for i in chosen]

    def make_row(index: int) -> Row:
        image = Reader.of(dataset).picture(data.image_paths[index])
        return Row(image, data.truth[index](), data.found[index])

    palette = choose_palette(dataset.metainfo)
    sections = [
        Section(
            "overlap",
            "Intersection over union",
            "Recall is the share of a class's pixels that are found, precision the share of the "
            "pixels predicted as it that are it.",
            Table.of(rows),
            draw_bars([row["IoU"] for row in rows], data.classes, "IoU"),
        ),
        _section_of_confusions(matrix, data.classes, "pixels", "Pixels without a label are out."),
        *([] if calibration is None else [_section_of_pixel_calibration(calibration)]),
        Section(
            "worst",
            "Worst images",
            "By the mean IoU of the classes that are in the image or predicted in it. Ground truth "
            "is on the left, what was found on the right.",
            Table(["image", "mean IoU"], [[n, float(qualities[i])] for i, n in named]),
            images=_draw_images(
                chosen, [name for _, name in named], make_row, data.classes, palette
            ),
        ),
    ]
    return Analysis("Where the segmentor goes wrong", facts, sections)


def _section_of_pixel_calibration(calibration: Calibration) -> Section:
    bins = zip(calibration.counts, calibration.scores, calibration.precision, strict=True)
    rows = [
        [f"{place / 10:.1f} to {(place + 1) / 10:.1f}", int(count), float(mean), float(share)]
        for place, (count, mean, share) in enumerate(bins)
        if count
    ]
    return Section(
        "calibration",
        "Calibration of confidence",
        "How many of the pixels of a confidence, the probability of the predicted class, are "
        "right, in bins of 0.1; on the dashed line, the confidence is the probability of being "
        "right. Dots stand at the mean confidence of their bin.",
        Table(["confidence", "pixels", "mean confidence", "share that is right"], rows),
        draw_calibration(calibration, "pixels", "confidence"),
    )


def _draw_images(
    chosen: Sequence[Any],
    names: Sequence[str],
    make_row: Callable[[Any], Row],
    classes: Sequence[str],
    palette: Sequence,
    min_score: float = 0.0,
) -> list[tuple[str, bytes]]:
    """Draws ground truth and prediction of each image: its name and the PNG."""
    pictures = []
    with TemporaryDirectory() as folder:
        path = Path(folder, "image.png")
        for item, name in zip(chosen, names, strict=True):
            prediction_sheet([make_row(item)], path, classes, palette, 1, min_score)
            pictures.append((name, path.read_bytes()))
    return pictures
