"""Puts an analysis together: numbers, pictures and the worst images of a set of predictions."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from swin_mm.analysis import detection, segmentation
from swin_mm.analysis.figures import draw_bars, draw_confusions, draw_curves
from swin_mm.analysis.page import Analysis, Section
from swin_mm.analysis.predictions import PredictionError
from swin_mm.analysis.segmentation import mean_of_known
from swin_mm.datasets.picture import Annotation, Row, choose_palette, prediction_sheet
from swin_mm.datasets.reader import Reader
from swin_mm.structures import Objects

BACKGROUND = "background"
MAX_CONFUSIONS = 12
KINDS = {"bbox": "box", "segm": "mask"}


def analyse_detection(
    dataset: Any, entries: list[dict], min_score: float, min_overlap: float, worst: int
) -> Analysis:
    """Analyses predictions, as `load_predictions` gives them, for a `CocoDataset` in test mode.

    Detections below `min_score` are neither confused nor drawn, and boxes that overlap by less than
    `min_overlap` are not the same object. So many of the `worst` images are drawn.
    """
    data = detection.read_data(dataset, entries)
    crowds = [truth.is_crowd for truth in data.truth if truth.is_crowd is not None]
    scores = [found.scores for found in data.found if found.scores is not None]
    facts: dict[str, Any] = {
        "images": len(data.image_ids),
        "objects": sum(int((~flags).sum()) for flags in crowds),
        "detections": sum(map(len, data.found)),
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
            for name in ("AP", "AP50"):
                facts[f"{KINDS[kind]} {name}"] = mean_of_known([row[name] for row in rows])
            sections += _sections_of_precision(KINDS[kind], rows, evaluation, data)
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
        _section_of_worst_detections(dataset, data, errors, min_score, worst),
    ]
    return Analysis("Where the detector goes wrong", facts, sections)


def _sections_of_precision(
    what: str, rows: list[dict[str, Any]], evaluation: Any, data: detection.DetectionData
) -> list[Section]:
    """Average precision by class, and precision by recall, of boxes or masks."""
    total: dict[str, Any] = {"class": "all"}
    for head in list(rows[0])[1:]:
        column = [row[head] for row in rows]
        total[head] = sum(column) if head.endswith("objects") else mean_of_known(column)
    plural = "boxes" if what == "box" else "masks"
    recalls, curves, means = detection.precision_curves(evaluation, data)
    return [
        Section(
            f"{what}_precision",
            f"Average precision of {plural}",
            "As COCO measures it. Small is below 32 x 32 pixels, large above 96 x 96.",
            [*rows, total],
            draw_bars([row["AP"] for row in rows], data.classes, f"{what} AP"),
        ),
        Section(
            f"{what}_precision_by_recall",
            f"Precision by recall of {plural}",
            "Thin lines are classes at an overlap of 0.5; thick lines are means over the classes. "
            "The area below a line is its average precision.",
            picture=draw_curves(recalls, curves, data.classes, means),
        ),
    ]


def _section_of_confusions(
    matrix: np.ndarray, names: Sequence[str], unit: str, note: str
) -> Section:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    rows = [
        {
            "true": names[row],
            "predicted": names[column],
            unit: int(wrong[row, column]),
            "share of the true class": float(wrong[row, column] / matrix[row].sum()),
        }
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column]
    ]
    picture = draw_confusions(matrix, names, unit)
    return Section("confusions", "What is taken for what", note, rows, picture)


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
    rows = {
        error.image: {
            "F1": error.quality,
            "right": error.right,
            "wrong class": error.confused,
            "missed": error.missed,
            "of nothing": error.invented,
        }
        for error in chosen
        if count(error)
    }

    def read(index: int) -> tuple[Objects, Objects]:
        truth, found = replace(data.truth[index], scores=None), data.found[index]
        if found.masks is None or (truth.masks is None and len(truth)):
            truth, found = replace(truth, masks=None), replace(found, masks=None)
        return truth, found

    note = f"By the F1 of detections of score {min_score:g} and above: 1 is without fault. "
    return _section_of_worst(dataset, data.image_paths, note, rows, read, min_score)


def analyse_segmentation(dataset: Any, entries: list[dict], worst: int) -> Analysis:
    """Analyses predictions, as `load_predictions` gives them, for a `BaseSegDataset` in test mode.

    So many of the `worst` images are drawn.
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
    sections = [
        Section(
            "overlap",
            "Intersection over union",
            "Recall is the share of a class's pixels that are found, precision the share of the "
            "pixels predicted as it that are it.",
            rows,
            draw_bars([row["IoU"] for row in rows], data.classes, "IoU"),
        ),
        _section_of_confusions(matrix, data.classes, "pixels", "Pixels without a label are out."),
    ]
    chosen = [int(i) for i in np.argsort(qualities, kind="stable")[:worst] if qualities[i] < 1]
    sections.append(
        _section_of_worst(
            dataset,
            data.image_paths,
            "By the mean IoU of the classes that are in the image or predicted in it. ",
            {i: {"mean IoU": float(qualities[i])} for i in chosen},
            lambda index: (data.truth[index](), data.found[index]),
        )
    )
    return Analysis("Where the segmentor goes wrong", facts, sections)


def _section_of_worst(
    dataset: Any,
    paths: Sequence[str],
    note: str,
    figures: dict[int, dict[str, Any]],
    read: Callable[[int], tuple[Annotation, Annotation]],
    min_score: float = 0.0,
) -> Section:
    """Figures of images by their numbers, and what `read` gives of each: truth and prediction."""
    reader, palette = Reader.of(dataset), choose_palette(dataset.metainfo)
    rows, pictures = [], []
    with TemporaryDirectory() as folder:
        file = Path(folder, "image.png")
        for index, figure in figures.items():
            row = Row(reader.picture(paths[index]), *read(index))
            classes = dataset.metainfo["classes"]
            prediction_sheet([row], file, classes, palette, 1, min_score)
            name = Path(paths[index]).name
            rows.append({"image": name, **figure})
            pictures.append((name, file.read_bytes()))
    note += "Ground truth is on the left, what was found on the right."
    return Section("worst", "Worst images", note, rows, images=pictures)
