"""Against mmdet's metric: figures, files and refusals."""

import copy
import gc
import json
import sys

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric as MmdetCocoMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from pycocotools import mask as coco_mask

from swin_mm.evaluation import CocoMetric, coco_eval
from swin_mm.inference.run_length import RunLengthMasks

HEIGHT, WIDTH = 60, 80
CLASSES = ("ant", "bee", "cat")
CATEGORY_IDS = (7, 2, 11)  # neither from 1 on nor sorted


def ellipses(boxes: np.ndarray) -> torch.Tensor:
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    left, top, right, bottom = (side[:, None, None] for side in boxes.T)
    across = (2 * x - left - right) / (right - left)
    down = (2 * y - top - bottom) / (bottom - top)
    return torch.from_numpy(across**2 + down**2 <= 1)


def boxes_near(rng: np.random.Generator, centres: np.ndarray, spread: float) -> np.ndarray:
    noisy = centres + rng.normal(0, spread, centres.shape)
    noisy[:, 2:] = np.maximum(noisy[:, 2:], noisy[:, :2] + 1)
    return noisy.astype(np.float32)


@pytest.fixture(scope="module")
def data() -> tuple[dict, list[dict]]:
    """Annotations, and a data sample of each image, with equal scores, crowds and empty images."""
    rng = np.random.default_rng(0)
    images, annotations, samples = [], [], []
    for number in range(30):
        image_id = 5 * number + 3
        images.append(dict(id=image_id, width=WIDTH, height=HEIGHT, file_name=f"{number}.jpg"))
        count = int(rng.integers(0, 6))
        corners = rng.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(3, 40, (count, 2))], axis=1)
        labels = rng.integers(0, 3, count)
        for box, label, mask in zip(boxes, labels, ellipses(boxes), strict=True):
            code = coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=CATEGORY_IDS[label],
                    bbox=[*box[:2], *(box[2:] - box[:2])],
                    area=float(coco_mask.area(code)),
                    segmentation={**code, "counts": code["counts"].decode()},
                    iscrowd=int(rng.random() < 0.1),
                )
            )
        chosen = rng.integers(0, count, 2 * count) if count else np.zeros(0, dtype=int)
        found = boxes_near(rng, boxes[chosen], 2.0)
        wrong = rng.random(len(chosen)) < 0.2
        samples.append(
            dict(
                img_id=image_id,
                ori_shape=(HEIGHT, WIDTH),
                instances=[
                    dict(bbox=box.tolist(), bbox_label=int(label), ignore_flag=0)
                    for box, label in zip(boxes, labels, strict=True)
                ],
                pred_instances=dict(
                    bboxes=torch.from_numpy(found),
                    scores=torch.from_numpy(rng.integers(1, 20, len(chosen)) / 20).float(),
                    labels=torch.from_numpy(np.where(wrong, 0, labels[chosen])),
                    masks=ellipses(found),
                ),
            )
        )
    categories = [dict(id=i, name=c) for i, c in zip(CATEGORY_IDS, CLASSES, strict=True)]
    content = dict(info={}, images=images, categories=categories, annotations=annotations)
    return content, samples


@pytest.fixture
def ann_file(data, tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data[0]))
    return str(path)


def evaluate(metric_type: type, samples: list[dict], **kwargs) -> dict:
    metric = metric_type(**kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, copy.deepcopy(samples[:7]))
    metric.process({}, copy.deepcopy(samples[7:]))
    return metric.compute_metrics(metric.results)


@pytest.fixture(params=["faster-coco-eval", "pycocotools"])
def backend(request, monkeypatch):
    if request.param == "pycocotools":
        monkeypatch.setattr(coco_eval, "find_spec", lambda name: None)
    return request.param


@pytest.mark.parametrize(
    "arguments",
    [
        dict(metric=["bbox", "segm"]),
        dict(metric="bbox", metric_items=["AR@300", "mAP", "AR_l@1000"]),
        dict(metric="segm", iou_thrs=np.array([0.5, 0.6, 0.75]), proposal_nums=(100, 1, 2)),
        dict(metric=["proposal", "bbox"]),
        dict(metric="bbox", use_mp_eval=True),
        dict(metric="bbox", ann_file=None),
    ],
    ids=["both", "items", "thresholds", "proposals", "processes", "no file"],
)
def test_figures_are_those_of_mmdet(data, ann_file, backend, arguments):
    arguments = {"ann_file": ann_file, **arguments}
    ours = evaluate(CocoMetric, data[1], **arguments)
    stock = evaluate(MmdetCocoMetric, data[1], **arguments)
    assert repr(ours) == repr(stock)  # also the order and the types of the figures
    assert 0.05 < next(iter(ours.values())) < 0.95


def test_one_threshold_is_given_alone(data, ann_file, backend):
    alone, listed = (
        evaluate(CocoMetric, data[1], ann_file=ann_file, metric="bbox", iou_thrs=thresholds)
        for thresholds in (0.5, [0.5])
    )
    assert repr(alone) == repr(listed) and 0.05 < alone["bbox_mAP"] < 0.95


def test_classes_have_figures_of_boxes_and_of_masks(data, ann_file, backend):
    def measure(metric_type, metric):
        return evaluate(metric_type, data[1], ann_file=ann_file, metric=metric, classwise=True)

    both = measure(CocoMetric, ["bbox", "segm"])
    assert next(iter(both)) == "bbox_mAP"  # what `save_best="auto"` of mmengine goes by
    for metric in ("bbox", "segm"):
        alone, stock = measure(CocoMetric, metric), measure(MmdetCocoMetric, metric)
        # pycocotools sorts the ids of classes, and mmdet reads what it gives in the file's order.
        names = [f"{name}_precision" for name in CLASSES]
        in_order = [names[place] for place in np.argsort(CATEGORY_IDS)]
        stock.update([(by_id, stock[name]) for by_id, name in zip(in_order, names, strict=True)])
        assert sorted(map(repr, alone.items())) == sorted(map(repr, stock.items()))
        for name in CLASSES:
            assert both[f"{metric}_{name}_precision"] == stock[f"{name}_precision"]
    assert both["bbox_ant_precision"] != both["segm_ant_precision"]
    assert "ant_precision" not in both


def test_recalls_are_named_after_the_detections_they_count(data, ann_file, backend):
    def measure(metric_type, numbers, items):
        return evaluate(
            metric_type,
            data[1],
            ann_file=ann_file,
            metric="bbox",
            proposal_nums=numbers,
            metric_items=items,
        )

    by_place = ["AR@100", "AR@300", "AR@1000", "AR_m@1000", "mAP", "mAP_50"]
    stock = measure(MmdetCocoMetric, (1, 2, 100), by_place)
    ours = measure(CocoMetric, (1, 2, 100), ["AR@1", "AR@2", "AR@100", "AR_m@100", "mAP", "mAP_50"])
    assert [*ours] == [f"bbox_{n}" for n in ("AR@1", "AR@2", "AR@100", "AR_m@100", "mAP", "mAP_50")]
    assert [*ours.values()] == [*stock.values()]
    assert ours["bbox_AR@1"] < ours["bbox_AR@2"] < ours["bbox_AR@100"]
    # Of any number of them, and without 100, for which pycocotools gives an mAP of -1.
    for numbers in ((2,), (1, 2), (1, 2, 50, 100)):
        some = measure(CocoMetric, numbers, ["AR@2", "mAP"])
        assert some["bbox_AR@2"] == ours["bbox_AR@2"]
        assert 0 < some["bbox_mAP"] <= ours["bbox_mAP"]
    with pytest.raises(KeyError, match="AR@300"):
        measure(CocoMetric, (1, 2, 100), ["AR@300"])
    proposals = evaluate(
        CocoMetric, data[1], ann_file=ann_file, metric="proposal", proposal_nums=(1, 2, 100)
    )
    assert [*proposals] == ["AR@1", "AR@2", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100"]


def test_labels_of_float_in_images_without_detections(data, ann_file):
    def empty(found: dict) -> dict:
        found = {name: values[:0] for name, values in found.items()}
        return {**found, "labels": found["labels"].float()}

    samples = [*with_predictions(data[1][:4], empty), *data[1][4:]]
    ints = [
        {
            **s,
            "pred_instances": {
                **s["pred_instances"],
                "labels": s["pred_instances"]["labels"].long(),
            },
        }
        for s in samples
    ]
    metric = ["bbox", "segm"]
    ours = evaluate(CocoMetric, samples, ann_file=ann_file, metric=metric)
    assert ours == evaluate(MmdetCocoMetric, ints, ann_file=ann_file, metric=metric)


def test_curves_of_both_tools_are_equal(data, ann_file):
    metric = CocoMetric(ann_file=ann_file)
    entries = [
        dict(image_id=sample["img_id"], bbox=[*box[:2], *(box[2:] - box[:2])], score=score)
        | dict(category_id=CATEGORY_IDS[label])
        for sample in data[1]
        for box, score, label in zip(
            sample["pred_instances"]["bboxes"].double().numpy(),
            sample["pred_instances"]["scores"].tolist(),
            sample["pred_instances"]["labels"].tolist(),
            strict=True,
        )
    ]
    coco = metric._coco_api
    results = [
        coco_eval.evaluate(
            coco,
            copy.deepcopy(entries),
            "bbox",
            coco.get_cat_ids(),
            coco.get_img_ids(),
            metric.proposal_nums,
            metric.iou_thrs,
            faster=faster,
        )
        for faster in (True, False)
    ]
    # Of true and false positives together, pycocotools divides by the next larger float.
    for curve in ("precision", "recall"):
        np.testing.assert_allclose(*(r.eval[curve] for r in results), rtol=1e-15)
    ours, theirs = (coco_eval.summarize(result) for result in results)
    np.testing.assert_allclose([*ours.values()], [*theirs.values()], rtol=1e-15)
    np.testing.assert_allclose(*(result.stats for result in results), rtol=1e-15)
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 |" in coco_eval.coco_table(results[1])
    np.testing.assert_allclose([*theirs.values()], results[1].stats, rtol=1e-15)


@pytest.mark.parametrize("format_only", [False, True])
def test_files_are_those_of_mmdet(data, ann_file, tmp_path, format_only):
    for name, metric_type in dict(ours=CocoMetric, stock=MmdetCocoMetric).items():
        prefix = str(tmp_path / name)
        kwargs = dict(metric=["bbox", "segm"], outfile_prefix=prefix, format_only=format_only)
        evaluate(metric_type, data[1], ann_file=ann_file, **kwargs)
    for kind in ("bbox", "segm"):
        ours, stock = (tmp_path / f"{name}.{kind}.json" for name in ("ours", "stock"))
        assert ours.read_bytes() == stock.read_bytes()


def with_predictions(samples: list[dict], change) -> list[dict]:
    return [{**s, "pred_instances": change(dict(s["pred_instances"]))} for s in samples]


def test_scores_of_masks_and_masks_that_are_run_lengths(data, ann_file):
    def change(found: dict) -> dict:
        found["mask_scores"] = 1 - found["scores"]
        runs = [coco_mask.encode(np.asfortranarray(m.numpy())) for m in found["masks"].byte()]
        found["masks"] = RunLengthMasks(runs, HEIGHT, WIDTH)
        return found

    samples = with_predictions(data[1], change)
    results = [
        evaluate(metric_type, samples, ann_file=ann_file, metric=["bbox", "segm"])
        for metric_type in (CocoMetric, MmdetCocoMetric)
    ]
    assert results[0] == results[1]
    plain = evaluate(CocoMetric, data[1], ann_file=ann_file, metric=["bbox", "segm"])
    assert results[0]["segm_mAP"] != plain["segm_mAP"]
    assert results[0]["bbox_mAP"] == plain["bbox_mAP"]


def test_samples_are_left_as_they_are(data, ann_file):
    metric = CocoMetric(ann_file=ann_file)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, data[1])
    assert all(torch.is_tensor(sample["pred_instances"]["masks"]) for sample in data[1])


def test_nothing_found_gives_no_figures(data, ann_file, backend):
    def empty(found: dict) -> dict:
        return {name: values[:0] for name, values in found.items()}

    samples = with_predictions(data[1], empty)
    assert evaluate(CocoMetric, samples, ann_file=ann_file, metric=["bbox", "segm"]) == {}


def test_segm_without_masks_is_refused(data, ann_file):
    samples = with_predictions(data[1], lambda found: {**found, "masks": None})
    for sample in samples:
        del sample["pred_instances"]["masks"]
    with pytest.raises(KeyError, match="the model predicts no masks"):
        evaluate(CocoMetric, samples, ann_file=ann_file, metric="segm")


def test_an_unknown_item_is_refused(data, ann_file):
    with pytest.raises(KeyError, match=r"metric_items must be of .*'mAP_xl'"):
        evaluate(CocoMetric, data[1], ann_file=ann_file, metric_items=["mAP", "mAP_xl"])


def test_one_line_says_which_tool(data, ann_file, backend, caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    evaluate(CocoMetric, data[1], ann_file=ann_file, metric=["bbox", "segm"])
    logger.removeHandler(caplog.handler)
    messages = [record.getMessage() for record in caplog.records]
    lines = [message for message in messages if message.startswith("COCO evaluation by")]
    assert len(lines) == 1
    assert lines.pop().startswith(f"COCO evaluation by {backend}")
    assert ("faster_coco_eval" in sys.modules) or backend == "pycocotools"


@pytest.mark.parametrize(
    ("section", "number"), [("images", "3"), ("images", -3), ("categories", "3")]
)
def test_ids_that_faster_coco_eval_does_not_take(data, tmp_path, section, number):
    content = copy.deepcopy(data[0])
    content[section][0]["id"] = number
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    assert "whole numbers" in coco_eval.why_not_faster(CocoMetric(ann_file=str(path))._coco_api)


def test_garbage_is_collected_again(data, ann_file):
    assert gc.isenabled()
    with pytest.raises(KeyError):
        evaluate(CocoMetric, data[1], ann_file=ann_file, metric_items=["x"])
    assert gc.isenabled()


def test_found_by_name():
    assert METRICS.build(dict(type="swin_mm.CocoMetric")).metrics == ["bbox"]


def perfect(content: dict) -> list[dict]:
    """A data sample of each image whose predictions are its annotations."""
    samples = []
    for image in content["images"]:
        own = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        boxes = torch.tensor([a["bbox"] for a in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in own]
        found = dict(
            bboxes=boxes,
            scores=torch.full((len(own),), 0.9),
            labels=torch.tensor([CATEGORY_IDS.index(a["category_id"]) for a in own]).long(),
            masks=torch.from_numpy(np.array(masks, bool).reshape(-1, HEIGHT, WIDTH)),
        )
        samples.append(
            dict(img_id=image["id"], ori_shape=(HEIGHT, WIDTH), pred_instances=found, instances=[])
        )
    return samples


def number_from_zero(annotations):
    for number, annotation in enumerate(annotations):
        annotation["id"] = number


def number_in_text(annotations):
    for annotation in annotations:
        annotation["id"] = f"a{annotation['id']}"


def number_all_alike(annotations):
    for annotation in annotations:
        annotation["id"] = 1


def leave_crowd_flags_out(annotations):
    for annotation in annotations:
        del annotation["iscrowd"]


def make_polygon(*polygons):
    return lambda annotations: annotations[0].update(segmentation=[*polygons])


ODD_ANNOTATIONS = {
    "from 0": number_from_zero,
    "text": number_in_text,
    "twice": number_all_alike,
    "no iscrowd": leave_crowd_flags_out,
    "point": make_polygon([5, 5]),
    "two points": make_polygon([5, 5, 9, 9]),
    "empty polygon": make_polygon([]),
    "no polygon": make_polygon(),
}


@pytest.mark.parametrize("change", ODD_ANNOTATIONS.values(), ids=ODD_ANNOTATIONS)
def test_perfect_predictions_score_one(data, tmp_path, backend, change):
    content = copy.deepcopy(data[0])
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    samples = perfect(content)
    change(content["annotations"])
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    assert evaluate(CocoMetric, samples, ann_file=str(path), metric="bbox")["bbox_mAP"] == 1.0
    assert evaluate(CocoMetric, samples, ann_file=str(path), metric="segm")["segm_mAP"] == 1.0


def test_masks_found_in_the_box_of_an_object_without_one_are_not_wrong(data, tmp_path, backend):
    """Half of the objects have no mask to match: the others alone count, and all are found."""
    content = copy.deepcopy(data[0])
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    samples = perfect(content)
    for annotation in content["annotations"][::2]:
        annotation["segmentation"] = [[5, 5, 9, 9]]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    metric = dict(ann_file=str(path), metric="segm")
    assert evaluate(CocoMetric, samples, **metric)["segm_mAP"] == 1.0
    # The same masks in an empty corner match no object and no box.
    for sample in samples:
        sample["pred_instances"]["masks"] = torch.zeros_like(sample["pred_instances"]["masks"])
        sample["pred_instances"]["masks"][:, -1, -1] = True
    assert evaluate(CocoMetric, samples, **metric)["segm_mAP"] == 0.0


def test_polygons_too_short_are_dropped_beside_others(data, tmp_path, backend):
    """The short one comes first: pycocotools would take all for boxes then."""
    content = copy.deepcopy(data[0])
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 0
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    first = content["annotations"][0]
    size = (HEIGHT, WIDTH)
    drawn = coco_mask.merge(coco_mask.frPyObjects([square], *size))
    first["segmentation"] = drawn
    samples = perfect(content)
    first["segmentation"] = [[5, 5, 9, 9], square]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(content))
    figures = evaluate(CocoMetric, samples, ann_file=str(path), metric="segm")
    assert figures["segm_mAP"] == 1.0
