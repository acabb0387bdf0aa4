"""The validation loss against one computed by hand, and that it leaves no traces."""

import json
import random
from itertools import count
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from toy_task import write_toy_config

from swin_mm.engine import ValLossHook
from swin_mm.engine.hooks import val_loss

NAMES = count()
SIDES = [(64, 96), (96, 64), (80, 80)]  # (height, width) in pixels
BACKBONE = dict(
    type="swin_mm.SwinTransformer",
    embed_dims=16,
    depths=(1, 2),
    num_heads=(1, 2),
    strides=(4, 2),
    out_indices=(0, 1),
    window_size=4,
    drop_rate=0.3,
    drop_path_rate=0.5,
)


def rectangle(height, width):
    """Left, top, right and bottom of the object in an image."""
    return width // 4, height // 4, width // 2, height - 10


def draw(folder):
    for i, (height, width) in enumerate(SIDES):
        left, top, right, bottom = rectangle(height, width)
        image = np.full((height, width, 3), 30 * i + 20, np.uint8)
        image[top:bottom, left:right] = (200, 30, 90)
        labels = np.zeros((height, width), np.uint8)
        labels[top:bottom, left:right] = 1
        cv2.imwrite(str(folder / f"{i}.jpg"), image)
        cv2.imwrite(str(folder / f"{i}.png"), labels)


def detection(folder):
    """A RetinaNet, whose losses draw nothing at random; its data, and how these are trained on."""
    init_default_scope("mmdet")
    draw(folder)
    images, annotations = [], []
    for i, (height, width) in enumerate(SIDES):
        images.append(dict(id=i, file_name=f"{i}.jpg", height=height, width=width))
        left, top, right, bottom = rectangle(height, width)
        box = [left, top, right - left, bottom - top]
        corners = [left, top, right, top, right, bottom, left, bottom]
        annotations.append(
            dict(id=i, image_id=i, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
            | dict(segmentation=[corners])
        )
    content = dict(images=images, annotations=annotations, categories=[dict(id=1, name="a")])
    (folder / "a.json").write_text(json.dumps(content))
    model = dict(
        type="RetinaNet",
        data_preprocessor=dict(
            type="DetDataPreprocessor",
            mean=[0, 0, 0],
            std=[255, 255, 255],
            pad_size_divisor=8,
            batch_augments=[dict(type="BatchFixedSizePad", size=(900, 900))],
        ),
        backbone=BACKBONE,
        neck=dict(
            type="FPN",
            in_channels=[16, 32],
            out_channels=16,
            num_outs=2,
            norm_cfg=dict(type="BN"),
        ),
        bbox_head=dict(
            type="RetinaHead",
            num_classes=1,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type="AnchorGenerator",
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8],
            ),
        ),
        train_cfg=dict(
            assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
            sampler=dict(type="PseudoSampler"),
            allowed_border=-1,
            pos_weight=-1,
        ),
    )
    annotate = dict(type="LoadAnnotations", with_bbox=True)
    resize = dict(type="Resize", scale=(48, 48), keep_ratio=True)
    load, pack = dict(type="LoadImageFromFile"), dict(type="PackDetInputs")
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        ann_file="a.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=("a",)),
        test_mode=True,
    )
    return model, dataset, [load, resize, annotate, pack], [load, annotate, resize, pack]


def segmentation(folder):
    """A segmentor with batch norm and dropout in its head; its data, and how it trains on them."""
    init_default_scope("mmseg")
    draw(folder)
    model = dict(
        type="EncoderDecoder",
        data_preprocessor=dict(type="SegDataPreProcessor", size=(40, 56), seg_pad_val=255),
        backbone=BACKBONE,
        decode_head=dict(
            type="FCNHead",
            in_channels=32,
            in_index=1,
            channels=8,
            num_convs=1,
            num_classes=2,
            norm_cfg=dict(type="BN"),
            dropout_ratio=0.5,
        ),
        test_cfg=dict(mode="whole"),
    )
    resize = dict(type="Resize", scale=(48, 48), keep_ratio=True)
    load, annotate = dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")
    pack = dict(type="PackSegInputs")
    dataset = dict(
        type="BaseSegDataset",
        data_root=str(folder),
        data_prefix=dict(img_path="", seg_map_path=""),
        metainfo=dict(classes=("a", "b"), palette=[[0, 0, 0], [255, 0, 0]]),
    )
    return model, dataset, [load, resize, annotate, pack], [load, annotate, resize, pack]


def mean_loss_by_hand(model, dataset, pipeline):
    """Of images one by one, in the order of training; heads are in the mode of training."""
    data = DATASETS.build({**dataset, "pipeline": pipeline})
    for module in model.modules():
        random_ones = (torch.nn.Dropout, torch.nn.Dropout2d, DropPath, torch.nn.BatchNorm2d)
        module.training = not isinstance(module, random_ones)
    model.data_preprocessor.batch_augments = None
    losses = []
    for i in range(len(data)):
        batch = model.data_preprocessor(pseudo_collate([data[i]]), True)
        losses.append(model.parse_losses(model(**batch, mode="loss"))[1])
    return {key: sum(loss[key].item() for loss in losses) / len(losses) for key in losses[0]}


def build(task, folder):
    model, dataset, test_pipeline, train_pipeline = task(folder)
    torch.manual_seed(0)
    model = MODELS.build(model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset={**dataset, "pipeline": test_pipeline},
    )
    runner = SimpleNamespace(
        model=model,
        cfg=SimpleNamespace(val_dataloader=ConfigDict(loader)),
        build_dataloader=Runner.build_dataloader,
    )
    return runner, dataset, train_pipeline


@pytest.mark.slow
@pytest.mark.parametrize("task", [detection, segmentation])
def test_equals_the_loss_of_training_on_these_images(task, tmp_path):
    runner, dataset, train_pipeline = build(task, tmp_path)
    metrics = {"mAP": 0.25}
    ValLossHook().after_val_epoch(runner, metrics)
    expected = mean_loss_by_hand(runner.model, dataset, train_pipeline)
    assert metrics.pop("mAP") == 0.25
    assert {key.removeprefix("val/"): value for key, value in metrics.items()} == pytest.approx(
        expected, rel=1e-5
    )
    assert "val/loss" in metrics and len(metrics) > 1


@pytest.mark.parametrize("task", [detection, segmentation])
def test_leaves_no_traces(task, tmp_path):
    runner, *_ = build(task, tmp_path)
    model = runner.model.eval()
    model.backbone.train()
    modes = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    augments = getattr(model.data_preprocessor, "batch_augments", None)
    numbers = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    hook, first, second = ValLossHook(), {}, {}
    hook.after_val_epoch(runner, first)
    assert torch.equal(numbers[0], torch.get_rng_state())
    assert (numbers[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert numbers[2] == random.getstate()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert getattr(model.data_preprocessor, "batch_augments", None) is augments
    torch.rand(3), random.random()
    hook.after_val_epoch(runner, second)
    assert first == second


def test_pipeline_without_annotations_is_refused():
    dataset = dict(dataset=dict(pipeline=[dict(type="LoadImageFromFile"), dict(type="Pack")]))
    with pytest.raises(ValueError, match="pipeline of val_dataloader loads none: add LoadAnnota"):
        val_loss._load_annotations_first(dataset)


def test_only_annotations_move():
    names = ["mmdet.LoadImageFromFile", "LoadDepth", "Resize", "mmdet.LoadAnnotations", "Pack"]
    dataset = dict(pipeline=[dict(type=name) for name in names])
    val_loss._load_annotations_first(dataset)
    found = [step["type"] for step in dataset["pipeline"]]
    assert found == [names[i] for i in (0, 1, 3, 2, 4)]


@pytest.mark.slow
def test_is_logged_and_can_choose_the_best_checkpoint(tmp_path):
    cfg = Config.fromfile(write_toy_config(tmp_path))
    cfg.custom_hooks = [dict(type="swin_mm.ValLossHook"), dict(type="EMAHook", momentum=0.5)]
    cfg.default_hooks.checkpoint.update(save_best="val/loss", max_keep_ckpts=1)
    cfg.update(work_dir=str(tmp_path / "work"), experiment_name=f"val_loss_{next(NAMES)}")
    runner = Runner.from_cfg(cfg)
    runner.train()
    lines = next((tmp_path / "work").glob("*/vis_data/scalars.json")).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    losses = [record["val/loss"] for record in records if "toy/error" in record]
    assert len(losses) == 4
    best = [path.name for path in (tmp_path / "work").glob("best_*")]
    assert best == [f"best_val_loss_epoch_{losses.index(min(losses)) + 1}.pth"]
    # That of the averaged weights, which are what a checkpoint holds.
    state = torch.load(tmp_path / "work" / "epoch_4.pth", weights_only=False)["state_dict"]
    weight, bias = state["linear.weight"], state["linear.bias"]
    data = runner.val_dataloader.dataset
    error = torch.nn.functional.linear(data.inputs, weight, bias).squeeze(1) - data.targets
    assert losses[-1] == pytest.approx(float(error.square().mean()), rel=1e-5)
