"""The panoptic recipe on data: files, pipeline, a training step, prediction, panoptic quality."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from mmengine.runner import Runner
from panoptic_stand_in import id2rgb, stand_in
from PIL import Image
from pycocotools.coco import COCO
from recipe_tools import build_small, load

BACKGROUND = 99  # category and, in every image, id


@pytest.fixture
def data(tmp_path, monkeypatch, tiny_shapes):
    """Built-in shapes as panoptic data: the shapes are things, the background is stuff."""
    stand_in(monkeypatch)
    root = shutil.copytree(tiny_shapes, tmp_path / "tiny")
    for split in ("train", "val"):
        coco = COCO(root / "annotations" / f"instances_{split}.json")
        (root / f"panoptic_{split}").mkdir()
        entries = []
        for number, image in coco.imgs.items():
            ids = np.full((image["height"], image["width"]), BACKGROUND)
            categories = {BACKGROUND: BACKGROUND}
            for annotation in coco.imgToAnns[number]:
                segment = 1000 + annotation["id"]
                ids[coco.annToMask(annotation) > 0] = segment
                categories[segment] = annotation["category_id"]
            name = f"{Path(image['file_name']).stem}.png"  # as mmdet looks for it
            Image.fromarray(id2rgb(ids)).save(root / f"panoptic_{split}" / name)
            segments = [describe(ids == s, s, categories[s]) for s in np.unique(ids).tolist()]
            entries.append(dict(image_id=number, file_name=name, segments_info=segments))
        things = [dict(category, isthing=1) for category in coco.cats.values()]
        stuff = dict(id=BACKGROUND, name="background", isthing=0)
        content = dict(
            images=list(coco.imgs.values()), annotations=entries, categories=[*things, stuff]
        )
        (root / f"panoptic_{split}.json").write_text(json.dumps(content))
    return root, tuple(category["name"] for category in things)


def describe(mask, segment, category):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return dict(id=segment, category_id=category, bbox=box, area=int(mask.sum()), iscrowd=0)


def make_config(root, things):
    cfg = load("mask2former_swin_t_panoptic")
    for head in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
        head.update(num_things_classes=len(things), num_stuff_classes=1)
    cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * (len(things) + 1) + [0.1]
    classes = (*things, "background")
    for split, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            data_root=f"{root}/",
            ann_file=f"panoptic_{split}.json",
            data_prefix=dict(img=f"{split}/", seg=f"panoptic_{split}/"),
            metainfo=dict(classes=classes, thing_classes=things, stuff_classes=("background",)),
        )
        for step in loader.dataset.pipeline:
            if "Resize" in step.type:
                step.scale = (96, 96)
            if step.type == "RandomCrop":
                step.crop_size = (96, 96)
    return cfg


@pytest.mark.slow
def test_one_step_and_one_evaluation(data):
    cfg = make_config(*data)
    torch.manual_seed(0)
    model = build_small(cfg).train()
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))
    sample = batch["data_samples"][0]
    assert {"masks", "labels"} <= set(sample.gt_instances.keys()) and "gt_sem_seg" in sample
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)

    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    metric = CocoPanopticMetric(
        ann_file=str(data[0] / "panoptic_val.json"),
        seg_prefix=str(data[0] / "panoptic_val"),
        nproc=1,
    )
    metric.dataset_meta = loader.dataset.metainfo
    model.eval()
    for batch in loader:
        with torch.no_grad():
            samples = model.test_step(batch)
        assert samples[0].pred_panoptic_seg.sem_seg.shape[1:] == samples[0].ori_shape
        metric.process(batch, [sample.to_dict() for sample in samples])
    found = metric.evaluate(len(loader.dataset))
    assert {"coco_panoptic/PQ", "coco_panoptic/PQ_th", "coco_panoptic/PQ_st"} <= found.keys()
    assert 0 <= found["coco_panoptic/PQ"] < 100


def test_the_truth_has_all_the_quality(data):
    """Told of as a prediction, the ground truth that the pipeline reads scores 100."""
    from mmdet.evaluation import INSTANCE_OFFSET

    root, _ = data
    cfg = make_config(*data)
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    metric = CocoPanopticMetric(
        ann_file=str(root / "panoptic_val.json"), seg_prefix=str(root / "panoptic_val"), nproc=1
    )
    metric.dataset_meta = loader.dataset.metainfo
    content = json.loads((root / "panoptic_val.json").read_text())
    order = {category["id"]: place for place, category in enumerate(content["categories"])}
    truth = {entry["image_id"]: entry for entry in content["annotations"]}
    for batch in loader:
        for sample in batch["data_samples"]:
            entry = truth[sample.img_id]
            colours = np.array(Image.open(root / "panoptic_val" / entry["file_name"]))
            ids = colours.astype(int) @ np.array([1, 256, 65536])
            found = np.zeros_like(ids)
            for number, segment in enumerate(entry["segments_info"], start=1):
                label = order[segment["category_id"]]
                found[ids == segment["id"]] = label + number * INSTANCE_OFFSET
            output = dict(sample.to_dict())
            output["pred_panoptic_seg"] = dict(sem_seg=torch.from_numpy(found)[None])
            metric.process(batch, [output])
    found = metric.evaluate(len(loader.dataset))
    assert found["coco_panoptic/PQ"] == pytest.approx(100)
