"""Analysis of label maps: by hand, and against mmseg's metric."""

import numpy as np
import pytest
import torch
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from PIL import Image

from swin_mm.analysis.predictions import PredictionError
from swin_mm.analysis.segmentation import (
    class_overlaps,
    confusion_matrix,
    count_confusions,
    read_data,
)

CLASSES = ("road", "tree", "sky")
TRUTH = np.array([[0, 0, 1, 1], [0, 255, 1, 1]], dtype=np.uint8)
FOUND = np.array([[0, 1, 1, 1], [0, 2, 1, 0]])


def make_data(folder, truths, founds, reduce_zero_label=False):
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index, truth in enumerate(truths):
        Image.fromarray(np.zeros((*truth.shape, 3), np.uint8)).save(folder / f"images/{index}.jpg")
        Image.fromarray(truth).save(folder / f"labels/{index}.png")
    dataset = BaseSegDataset(
        data_root=str(folder),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=CLASSES, palette=[[0, 0, 0]] * 3),
        reduce_zero_label=reduce_zero_label,
        pipeline=[dict(type="LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")],
        test_mode=True,
    )
    entries = [
        dict(img_path=f"elsewhere/{index}.jpg", labels=found.astype(np.int16))
        for index, found in enumerate(founds)
    ]
    return dataset, entries


def test_by_hand():
    matrix = confusion_matrix(TRUTH, FOUND, 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 3, 0], [0, 0, 0]]
    road, tree, sky = class_overlaps(matrix, CLASSES)
    assert (road["IoU"], road["recall"], road["precision"]) == (2 / 4, 2 / 3, 2 / 3)
    assert (tree["IoU"], tree["recall"], tree["share of pixels"]) == (3 / 5, 3 / 4, 4 / 7)
    assert np.isnan([sky["IoU"], sky["recall"], sky["precision"]]).all()
    assert sky["class"] == "sky" and sky["share of pixels"] == 0


@pytest.mark.parametrize("reduce_zero_label", [False, True], ids=["plain", "zero label"])
def test_overlaps_equal_mmsegs_metric(tmp_path, reduce_zero_label):
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 4 if reduce_zero_label else 3, (20, 30), np.uint8) for _ in range(3)]
    founds = [rng.integers(0, 3, (20, 30)) for _ in range(3)]
    dataset, entries = make_data(tmp_path, truths, founds, reduce_zero_label)
    matrix, qualities = count_confusions(read_data(dataset, entries))
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = dict(classes=CLASSES)
    for index, found in enumerate(founds):
        truth = dataset[index]["gt_seg_map"]
        sample = dict(
            pred_sem_seg=dict(data=torch.tensor(found)[None]),
            gt_sem_seg=dict(data=torch.tensor(truth.astype(int))[None]),
        )
        metric.process({}, [sample])
    expected = metric.evaluate(3)
    rows = class_overlaps(matrix, CLASSES)
    assert 100 * np.mean([row["IoU"] for row in rows]) == pytest.approx(expected["mIoU"], abs=0.006)
    assert 100 * np.mean([row["recall"] for row in rows]) == pytest.approx(
        expected["mAcc"], abs=0.006
    )
    assert 100 * np.trace(matrix) / matrix.sum() == pytest.approx(expected["aAcc"], abs=0.006)
    assert qualities.shape == (3,) and (qualities > 0).all() and (qualities < 1).all()


def test_quality_of_an_image_is_that_of_its_classes(tmp_path):
    half = np.where(np.arange(4) < 2, 1, 2)[None].repeat(2, 0)
    dataset, entries = make_data(tmp_path, [TRUTH, np.ones((2, 4), np.uint8)], [FOUND, half])
    _, qualities = count_confusions(read_data(dataset, entries))
    assert qualities.tolist() == [(2 / 4 + 3 / 5) / 2, (1 / 2 + 0) / 2]


def test_dump_of_mmengine(tmp_path):
    dataset, entries = make_data(tmp_path, [TRUTH], [FOUND])
    data = dict(data=torch.tensor(FOUND)[None])
    entries = [dict(img_path=entries[0]["img_path"], pred_sem_seg=data)]
    matrix, _ = count_confusions(read_data(dataset, entries))
    assert matrix.sum() == 7


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FOUND[:, :3], r"0.jpg: the prediction is 2 x 3 pixels, the label map 2 x 4"),
        (FOUND + 2, "labels of the predictions must be below 3, got 2 to 3"),
    ],
    ids=["size", "label"],
)
def test_predictions_that_do_not_fit(tmp_path, found, message):
    dataset, entries = make_data(tmp_path, [TRUTH], [found])
    with pytest.raises(PredictionError, match=message):
        count_confusions(read_data(dataset, entries))


def test_truth_that_does_not_fit(tmp_path):
    dataset, entries = make_data(tmp_path, [TRUTH + 3], [FOUND])
    with pytest.raises(PredictionError, match="labels of the ground truth must be below 3"):
        count_confusions(read_data(dataset, entries))


def test_files_in_two_folders_may_share_a_name(tmp_path):
    truths = np.zeros((2, 4), np.uint8), np.ones((2, 4), np.uint8)
    make_data(tmp_path, truths, truths)
    for kind, suffix in (("images", "jpg"), ("labels", "png")):
        for index, folder in enumerate("ab"):
            (tmp_path / kind / folder).mkdir()
            path = tmp_path / kind / f"{index}.{suffix}"
            path.rename(tmp_path / kind / folder / f"same.{suffix}")
    dataset = BaseSegDataset(
        data_root=str(tmp_path),
        data_prefix=dict(img_path="images", seg_map_path="labels"),
        metainfo=dict(classes=CLASSES, palette=[[0, 0, 0]] * 3),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")],
        test_mode=True,
    )
    entries = [
        dict(img_path=f"elsewhere/{folder}/same.jpg", labels=truth.astype(int))
        for folder, truth in zip("ba", truths[::-1], strict=True)
    ]
    matrix, _ = count_confusions(read_data(dataset, entries))
    assert matrix.tolist() == [[8, 0, 0], [0, 8, 0], [0, 0, 0]]


def test_an_image_without_a_prediction_is_named(tmp_path):
    dataset, entries = make_data(tmp_path, [TRUTH, TRUTH], [FOUND, FOUND])
    with pytest.raises(PredictionError, match=r"1 images lack predictions .* such as 1\.jpg$"):
        read_data(dataset, entries[:1])


def test_predictions_of_a_detector(tmp_path):
    dataset, _ = make_data(tmp_path, [TRUTH], [FOUND])
    with pytest.raises(PredictionError, match="not those of a segmentor: no labels"):
        read_data(dataset, [dict(img_path="0.jpg", pred_instances={})])
    with pytest.raises(PredictionError, match="not those of a segmentor: no img_path"):
        read_data(dataset, [dict(img_id=0)])
