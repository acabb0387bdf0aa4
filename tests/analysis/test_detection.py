"""Analysis of detections, on cases small enough to calculate by hand and against mmdet's metric."""

import json

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from pycocotools import mask as mask_utils

from swin_mm.analysis.detection import (
    ImageErrors,
    Objects,
    class_precisions,
    count_confusions,
    evaluate,
    match,
    precision_curves,
    read_data,
)
from swin_mm.analysis.predictions import PredictionError

SIDE = 200  # of the images, in pixels


def objects(boxes, labels, scores=None, is_crowd=None) -> Objects:
    count = len(labels)
    return Objects(
        labels=np.array(labels, dtype=int),
        boxes=np.array(boxes, dtype=float).reshape(-1, 4),
        scores=np.ones(count) if scores is None else np.array(scores, dtype=float),
        is_crowd=np.zeros(count, dtype=bool) if is_crowd is None else np.array(is_crowd),
    )


def make_mask(box) -> dict:
    left, top, right, bottom = (round(edge) for edge in box)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask_utils.encode(mask)


def make_data(folder, truth, found, classes=("cat", "dog"), category_ids=None):
    """Writes annotations of images with boxes `truth` and reads them with predictions `found`."""
    category_ids = category_ids or range(1, len(classes) + 1)
    annotations = []
    for image, own in enumerate(truth):
        for box, label, crowd in zip(own.boxes.tolist(), own.labels, own.is_crowd, strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            runs = make_mask(box)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image + 1,
                    category_id=category_ids[label],
                    bbox=[box[0], box[1], width, height],
                    area=width * height,
                    iscrowd=int(crowd),
                    segmentation={**runs, "counts": runs["counts"].decode()},
                )
            )
    content = dict(
        images=[
            dict(id=i + 1, file_name=f"{i}.png", height=SIDE, width=SIDE) for i in range(len(truth))
        ],
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in zip(category_ids, classes, strict=True)],
    )
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    dataset = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=""),
        metainfo=dict(classes=tuple(classes)),
        test_mode=True,
        pipeline=[],
    )
    entries = [
        dict(
            img_id=image + 1,
            pred_instances=dict(
                bboxes=torch.tensor(own.boxes),
                labels=torch.tensor(own.labels),
                scores=torch.tensor(own.scores),
                masks=[make_mask(box) for box in own.boxes],
            ),
        )
        for image, own in enumerate(found)
    ]
    return dataset, entries


BOX, SHIFTED, AWAY = [10, 10, 50, 50], [10, 10, 50, 40], [100, 100, 180, 180]


@pytest.mark.parametrize(
    ("truth", "found", "pairs"),
    [
        (objects([BOX], [0]), objects([BOX], [0], [0.9]), [(0, 0)]),
        (objects([BOX], [0]), objects([BOX], [1], [0.9]), [(0, 0)]),
        (objects([BOX], [0]), objects([AWAY], [0], [0.9]), [(0, None), (None, 0)]),
        (objects([BOX], [0]), objects([BOX], [0], [0.2]), [(0, None)]),
        # The larger overlap goes first, though its score is lower.
        (objects([BOX], [0]), objects([SHIFTED, BOX], [0, 0], [0.9, 0.4]), [(0, 1), (None, 0)]),
        # Of two equal ones the right class, though its score is lower.
        (objects([BOX], [0]), objects([BOX, BOX], [1, 0], [0.9, 0.4]), [(0, 1), (None, 0)]),
        # One detection is one object.
        (objects([BOX, BOX], [0, 1]), objects([BOX], [1], [0.9]), [(1, 0), (0, None)]),
        (objects([], []), objects([], []), []),
        # In a crowd a detection is neither right nor wrong.
        (objects([AWAY], [0], is_crowd=[True]), objects([[110, 110, 140, 140]], [0], [0.9]), []),
    ],
    ids=[
        "right",
        "confused",
        "missed and invented",
        "too uncertain",
        "largest overlap",
        "right class",
        "once",
        "nothing",
        "crowd",
    ],
)
def test_match(truth, found, pairs):
    assert match(truth, found, min_score=0.3, min_overlap=0.5) == pairs


@pytest.mark.parametrize("count", [1, 2])
def test_confusions_of_few_classes(tmp_path, count):
    """Right, missed, invented and, with two classes, confused: each is counted once."""
    other = count - 1
    truth = [objects([BOX, AWAY], [0, other]), objects([BOX], [0]), objects([], [])]
    found = [
        objects([BOX, AWAY], [0, 0], [0.9, 0.8]),
        objects([], []),
        objects([BOX, AWAY], [other, 0], [0.6, 0.1]),
    ]
    dataset, entries = make_data(tmp_path, truth, found, ["cat", "dog"][:count])
    matrix, errors = count_confusions(read_data(dataset, entries))
    if count == 1:
        assert matrix.tolist() == [[2, 1], [1, 0]]
        assert errors[0] == ImageErrors(0, right=2, confused=0, missed=0, invented=0)
    else:
        assert matrix.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
        assert errors[0] == ImageErrors(0, right=1, confused=1, missed=0, invented=0)
    assert errors[1:] == [ImageErrors(1, 0, 0, 1, 0), ImageErrors(2, 0, 0, 0, 1)]


@pytest.mark.parametrize(
    ("error", "quality"),
    [
        (ImageErrors(0, 3, 0, 0, 0), 1.0),
        (ImageErrors(0, 0, 0, 0, 0), 1.0),
        (ImageErrors(0, 0, 0, 2, 0), 0.0),
        # Two of four objects found by four detections, one of them as another class.
        (ImageErrors(0, 2, 1, 1, 1), 0.5),
    ],
    ids=["all right", "nothing to find", "all missed", "half"],
)
def test_quality_is_f1(error, quality):
    assert error.quality == quality


def random_case(seed: int):
    """Boxes of all sizes, predictions beside them, some of them wrong."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(6):
        count = rng.integers(1, 5)
        corner = rng.integers(0, 60, (count, 2))
        size = rng.choice([12, 40, 120], (count, 1)) + rng.integers(0, 8, (count, 2))
        boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, 3, count)
        truth.append(objects(boxes, labels))
        moved = np.concatenate([boxes + rng.integers(-3, 4, boxes.shape)] * 2).clip(0, SIDE)
        wrong = rng.random(2 * count) < 0.3
        guesses = np.where(wrong, rng.integers(0, 3, 2 * count), np.concatenate([labels] * 2))
        found.append(objects(moved, guesses, rng.random(2 * count)))
    return truth, found


@pytest.mark.parametrize("category_ids", [(1, 2, 3), (7, 3, 5)], ids=["in order", "out of order"])
def test_precisions_equal_mmdets_metric(tmp_path, category_ids):
    truth, found = random_case(3)
    classes = ("cat", "dog", "hen")
    dataset, entries = make_data(tmp_path, truth, found, classes, category_ids)
    data = read_data(dataset, entries)
    metric = CocoMetric(ann_file=dataset.ann_file, metric=["bbox", "segm"], classwise=True)
    metric.dataset_meta = dataset.metainfo
    for entry in entries:
        masks = torch.tensor(mask_utils.decode(entry["pred_instances"]["masks"])).permute(2, 0, 1)
        instances = {**entry["pred_instances"], "masks": masks.bool()}
        sample = dict(entry, pred_instances=instances, ori_shape=(SIDE, SIDE))
        metric.process({}, [sample])
    expected = metric.evaluate(len(entries))
    for kind in ("bbox", "segm"):
        rows = class_precisions(evaluate(data, kind), data)
        # mmdet names each class by its place in the file, where pycocotools has them by number;
        # of boxes and masks under one name it keeps the masks'.
        if kind == "segm" and sorted(category_ids) == list(category_ids):
            for row in rows:
                assert round(row["AP"], 3) == expected[f"coco/{row['class']}_precision"]
        for size, name in (("AP", "mAP"), ("AP small", "mAP_s"), ("AP large", "mAP_l")):
            values = [row[size] for row in rows]
            assert round(float(np.nanmean(values)), 3) == expected[f"coco/{kind}_{name}"]
        values = [row["AP50"] for row in rows]
        assert round(float(np.nanmean(values)), 3) == expected[f"coco/{kind}_mAP_50"]
        assert sum(row["objects"] for row in rows) == sum(len(own.labels) for own in truth)
        counts = [
            sum(row[f"{size} objects"] for size in ("small", "medium", "large")) for row in rows
        ]
        assert counts == [row["objects"] for row in rows]


@pytest.mark.parametrize("category_ids", [(1, 2, 3), (7, 3, 5)], ids=["in order", "out of order"])
def test_area_below_the_curves_is_average_precision(tmp_path, category_ids):
    case = random_case(3)
    data = read_data(*make_data(tmp_path, *case, ("cat", "dog", "hen"), category_ids))
    evaluation = evaluate(data, "bbox")
    recalls, curves, means = precision_curves(evaluation, data)
    rows = class_precisions(evaluation, data)
    assert recalls.shape == (101,)
    assert curves.mean(1).tolist() == pytest.approx([row["AP50"] for row in rows])
    mean = np.mean([row["AP"] for row in rows])
    assert means["overlaps 0.5 to 0.95"].mean() == pytest.approx(mean)


def test_curve_by_hand(tmp_path):
    """Right, wrong, right by falling score; a class without objects has no curve."""
    truth = [objects([BOX, AWAY], [0, 0])]
    found = [objects([BOX, [150, 10, 190, 50], AWAY], [0, 0, 0], [0.9, 0.8, 0.7])]
    data = read_data(*make_data(tmp_path, truth, found))
    _, curves, means = precision_curves(evaluate(data, "bbox"), data)
    assert curves[0].tolist() == pytest.approx([1] * 51 + [2 / 3] * 50)
    assert np.isnan(curves[1]).all()
    assert means["overlap 0.75"].tolist() == curves[0].tolist()


def test_numbers_of_categories_do_not_matter(tmp_path):
    results = []
    for ids in ((1, 2, 3), (7, 3, 5)):
        folder = tmp_path / str(ids[0])
        folder.mkdir()
        data = read_data(*make_data(folder, *random_case(4), ("cat", "dog", "hen"), ids))
        results.append(class_precisions(evaluate(data, "bbox"), data))
    assert str(results[0]) == str(results[1])  # as text, for NaN


def test_nothing_predicted_misses_every_object(tmp_path):
    data = read_data(*make_data(tmp_path, [objects([BOX], [0])], [objects([], [])]))
    assert evaluate(data, "bbox") is None
    matrix, _ = count_confusions(data)
    assert matrix.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries[:1], "1 images lack predictions and 0 predictions lack images"),
        (lambda entries: [{**e, "img_id": e["img_id"] + 1} for e in entries], "such as 1"),
        (lambda entries: [{"img_id": e["img_id"]} for e in entries], "no pred_instances"),
    ],
    ids=["too few", "of other images", "of a segmentor"],
)
def test_predictions_of_other_data(tmp_path, change, message):
    truth = [objects([BOX], [0])] * 2
    dataset, entries = make_data(tmp_path, truth, truth)
    with pytest.raises(PredictionError, match=message):
        read_data(dataset, change(entries))


def test_predictions_of_more_classes(tmp_path):
    dataset, entries = make_data(tmp_path, [objects([BOX], [0])], [objects([BOX], [2], [0.5])])
    with pytest.raises(PredictionError, match="label 2, but the data has 2 classes"):
        read_data(dataset, entries)
