"""The panoptic recipe on the built-in data: a training step, prediction, panoptic quality."""

import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import INSTANCE_OFFSET, CocoPanopticMetric
from mmengine.runner import Runner
from PIL import Image
from recipe_tools import build_small, load


@pytest.fixture
def cfg(tiny_shapes):
    """The recipe on shapes, which are things, and their background, which is stuff."""
    cfg = load("mask2former_swin_t_panoptic")
    for head in (cfg.model.panoptic_head, cfg.model.panoptic_fusion_head):
        head.update(num_things_classes=6, num_stuff_classes=1)
    cfg.model.panoptic_head.loss_cls.class_weight = [1.0] * 7 + [0.1]
    for split, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(
            type="swin_mm.ShapesPanopticDataset",
            data_root=f"{tiny_shapes}/",
            ann_file=f"annotations/panoptic_{split}.json",
            data_prefix=dict(img=f"{split}/", seg=f"panoptic/{split}/"),
        )
        for step in loader.dataset.pipeline:
            if "Resize" in step.type:
                step.scale = (96, 96)
            if step.type == "RandomCrop":
                step.crop_size = (96, 96)
    return cfg


def make_metric(folder, loader):
    metric = CocoPanopticMetric(
        ann_file=str(folder / "annotations" / "panoptic_val.json"),
        seg_prefix=str(folder / "panoptic" / "val"),
        nproc=1,
    )
    metric.dataset_meta = loader.dataset.metainfo
    return metric


@pytest.mark.slow
def test_one_step_and_one_evaluation(cfg, tiny_shapes):
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
    metric = make_metric(tiny_shapes, loader)
    model.eval()
    for batch in loader:
        with torch.no_grad():
            samples = model.test_step(batch)
        assert samples[0].pred_panoptic_seg.sem_seg.shape[1:] == samples[0].ori_shape
        metric.process(batch, [sample.to_dict() for sample in samples])
    found = metric.evaluate(len(loader.dataset))
    assert {"coco_panoptic/PQ", "coco_panoptic/PQ_th", "coco_panoptic/PQ_st"} <= found.keys()
    assert 0 <= found["coco_panoptic/PQ"] < 100


def test_the_truth_has_all_the_quality(cfg, tiny_shapes):
    """Given as a prediction, the ground truth that the pipeline reads scores 100."""
    loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
    metric = make_metric(tiny_shapes, loader)
    content = json.loads((tiny_shapes / "annotations" / "panoptic_val.json").read_text())
    truth = {entry["image_id"]: entry for entry in content["annotations"]}
    for batch in loader:
        for sample in batch["data_samples"]:
            entry = truth[sample.img_id]
            colours = np.array(Image.open(tiny_shapes / "panoptic" / "val" / entry["file_name"]))
            ids = colours.astype(int) @ np.array([1, 256, 65536])
            found = np.zeros_like(ids)
            for number, segment in enumerate(entry["segments_info"], start=1):
                label = segment["category_id"] - 1
                found[ids == segment["id"]] = label + number * INSTANCE_OFFSET
            output = dict(sample.to_dict())
            output["pred_panoptic_seg"] = dict(sem_seg=torch.from_numpy(found)[None])
            metric.process(batch, [output])
    found = metric.evaluate(len(loader.dataset))
    assert found["coco_panoptic/PQ"] == found["coco_panoptic/PQ_st"] == pytest.approx(100)
