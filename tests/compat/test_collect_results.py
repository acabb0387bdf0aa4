"""Metrics of several processes without a shared folder equal those of one, to the last digit."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import metric as mmengine_metric
from mmseg.evaluation import IoUMetric
from ranks import run_ranks

from swin_mm.evaluation import CocoMetric

IMAGES, SIDE = 7, 24
CLASSES = ("a", "b", "c")
META = dict(classes=CLASSES, thing_classes=CLASSES[:2], stuff_classes=CLASSES[2:])


def shares(rank, count, round_up=True):
    """The images of a process, as mmengine's sampler gives them out."""
    sampler = DefaultSampler(range(IMAGES), shuffle=False, round_up=round_up)
    assert (sampler.rank, sampler.world_size) == (rank, count)
    return list(sampler)


@pytest.mark.parametrize("round_up", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_results_are_those_of_the_data_set_in_order(tmp_path, count, round_up):
    def collect(rank):
        own = [{"image": i, "none": None} for i in shares(rank, count, round_up)]
        return mmengine_metric.collect_results(own, IMAGES)

    collected = run_ranks(collect, count, tmp_path / "ranks")
    wanted = [{"image": i, "none": None} for i in range(IMAGES)]
    assert collected == [(wanted, [])] + [(None, [])] * (count - 1)


def test_none_is_a_result(tmp_path):
    results = run_ranks(lambda rank: mmengine_metric.collect_results([None], 2), 2, tmp_path / "r")
    assert results[0][0] == [None, None]


def test_a_folder_that_a_metric_names_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.distributed.gather_object", None)  # an error, were it called
    folder = str(tmp_path / "shared")
    results = run_ranks(
        lambda rank: mmengine_metric.collect_results([rank], 2, "cpu", folder), 2, tmp_path / "r"
    )
    assert results == [([0, 1], []), (None, [])]


def draw_boxes(draw, count):
    corners = draw.uniform(0, SIDE - 8, (count, 2))
    return np.concatenate([corners, corners + draw.uniform(3, 8, (count, 2))], 1)


def make_coco(folder, draw):
    truth = [draw_boxes(draw, 3) for _ in range(IMAGES)]
    annotations = [
        dict(bbox=[*box[:2], *(box[2:] - box[:2])], category_id=place + 1, image_id=image)
        for image, boxes in enumerate(truth)
        for place, box in enumerate(boxes)
    ]
    for number, annotation in enumerate(annotations, 1):
        area = annotation["bbox"][2] * annotation["bbox"][3]
        annotation.update(id=number, area=area, iscrowd=0)
    content = dict(
        images=[dict(id=image, width=SIDE, height=SIDE) for image in range(IMAGES)],
        categories=[dict(id=place, name=name) for place, name in enumerate(CLASSES, 1)],
        annotations=annotations,
    )
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    samples = []
    for image, boxes in enumerate(truth):
        found = np.concatenate([boxes + draw.normal(0, 0.6, boxes.shape), draw_boxes(draw, 4)])
        found = dict(
            bboxes=torch.tensor(found, dtype=torch.float32),
            scores=torch.tensor(draw.uniform(0, 1, 7), dtype=torch.float32),
            labels=torch.tensor([0, 1, 2, 0, 1, 2, 0]),
        )
        samples.append(dict(img_id=image, ori_shape=(SIDE, SIDE), pred_instances=found))
    return lambda: CocoMetric(ann_file=str(path)), samples


def make_semantic(folder, draw):
    samples = []
    for _ in range(IMAGES):
        labels = draw.integers(0, 3, (1, SIDE, SIDE))
        guess = np.where(draw.random(labels.shape) < 0.7, labels, draw.integers(0, 3, labels.shape))
        truth, found = ({"data": torch.tensor(each)} for each in (labels, guess))
        samples.append(dict(gt_sem_seg=truth, pred_sem_seg=found))
    return lambda: IoUMetric(["mIoU", "mDice"]), samples


def make_panoptic(folder, draw):
    images, annotations, samples = [], [], []
    for image in range(IMAGES):
        labels = np.repeat(draw.permutation(3), SIDE // 3)[:, None].repeat(SIDE, 1)
        cv2.imwrite(
            str(folder / f"{image}.png"), np.pad(labels[..., None] + 1, ((0, 0), (0, 0), (2, 0)))
        )
        segments = [
            dict(id=i + 1, category_id=i, area=int((labels == i).sum()), iscrowd=0)
            for i in range(3)
        ]
        name = dict(file_name=f"{image}.png", image_id=image)
        annotations.append(dict(segments_info=segments, **name))
        size = dict(width=SIDE, height=SIDE)
        images.append(dict(id=image, file_name=f"{image}.jpg", **size))
        found = np.roll(labels, draw.integers(0, 4), 0)[None]
        sample = dict(img_id=image, img_path=f"{image}.jpg", ori_shape=(SIDE, SIDE))
        sample["pred_panoptic_seg"] = {"sem_seg": torch.tensor(found)}
        samples.append(sample)
    kinds = [dict(id=i, name=name, isthing=int(i < 2)) for i, name in enumerate(CLASSES)]
    path = folder / "panoptic.json"
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=kinds)))
    return lambda: CocoPanopticMetric(ann_file=str(path), seg_prefix=str(folder)), samples


@pytest.mark.parametrize(
    ("make", "name"),
    [(make_coco, "coco/bbox_mAP"), (make_semantic, "mIoU"), (make_panoptic, "coco_panoptic/PQ")],
    ids=["coco", "semantic", "panoptic"],
)
def test_metrics_do_not_depend_on_the_number_of_processes(tmp_path, make, name):
    build, samples = make(tmp_path, np.random.default_rng(0))

    def evaluate(images):
        metric = build()
        metric.dataset_meta = META
        for image in images:
            metric.process({}, [samples[image]])
        return metric.evaluate(IMAGES)

    alone = evaluate(range(IMAGES))
    assert 0.05 < alone[name] < 99.0
    for count in (2, 3):
        ranks = run_ranks(lambda rank: evaluate(shares(rank, count)), count, tmp_path / f"{count}")  # noqa: B023
        assert ranks == [(alone, [])] * count
