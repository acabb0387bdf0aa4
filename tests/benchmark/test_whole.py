"""Whole models: a step of swin_mm's and of the stock one."""

import pytest
import torch
from small_workload import small_workload

from swin_mm.benchmark.peers import MissingPeerError
from swin_mm.benchmark.whole import ModelStep, loaded_batches, stock_config
from swin_mm.cli.config import load_config
from swin_mm.configs import ConfigError

CONFIGS = {"mmdet": "mask_rcnn_swin_mini_shapes", "mmseg": "upernet_swin_mini_shapes"}


def whole_workload(framework, **changes):
    config = load_config(CONFIGS[framework])
    return small_workload(part="config", sizes=((64, 96),), batch=1, config=config, **changes)


@pytest.mark.parametrize("framework", CONFIGS)
def test_stock_model_has_the_same_parameters(framework):
    work = whole_workload(framework)
    shapes = []
    for library in ("swin_mm", framework):
        model = ModelStep(library, work).model
        shapes.append(sorted(tuple(p.shape) for p in model.parameters()))
    assert shapes[0] == shapes[1]
    assert type(model.backbone).__module__.startswith(framework)
    assert work.describe() == f"{CONFIGS[framework]}, 64x96, batch 1, inference, fp32"


@pytest.mark.parametrize("framework", CONFIGS)
def test_training_step_changes_weights(framework):
    step = ModelStep("swin_mm", whole_workload(framework, mode="train"))
    weight = step.model.backbone.patch_embed.proj.weight
    before = weight.detach().clone()
    step.run(0)
    step.run(0)
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("framework", CONFIGS)
def test_prediction(framework):
    step = ModelStep("swin_mm", whole_workload(framework))
    (found,) = step.run(0)
    assert hasattr(found, "pred_instances" if framework == "mmdet" else "pred_sem_seg")


def test_what_cannot_be_built():
    with pytest.raises(MissingPeerError, match="timm has no part in a config of mmdet"):
        ModelStep("timm", whole_workload("mmdet"))
    with pytest.raises(ValueError, match="float16 training of a whole model needs a GPU"):
        ModelStep("swin_mm", whole_workload("mmdet", mode="train", dtype="fp16"))
    cfg = load_config(CONFIGS["mmdet"], {"model.backbone.type": "swin_mm.SwinTransformerV2"})
    with pytest.raises(MissingPeerError, match="mmdet has no class for swin_mm.SwinTransformerV2"):
        stock_config(cfg)


def test_stock_config_leaves_the_given_one_alone():
    cfg = load_config(CONFIGS["mmdet"])
    assert stock_config(cfg).model.neck.type == "mmdet.FPN"
    assert cfg.model.neck.type == "swin_mm.FPN"
    assert cfg.model.backbone.type == "swin_mm.SwinTransformer"


def test_missing_data_are_an_error_that_says_what_to_do(tmp_path):
    cfg = load_config(CONFIGS["mmdet"])
    cfg.train_dataloader.dataset.update(type="mmdet.CocoDataset", data_root=str(tmp_path))
    with pytest.raises(ConfigError, match="are missing .*instances_train.json.*--size HxW"):
        loaded_batches(cfg)


def test_detectors_find_the_objects_asked_for_with_the_same_weights():
    """Of random weights, which find nothing by themselves; mmdet's own detector finds the same."""
    work = whole_workload("mmdet", objects=5)
    libraries = ("swin_mm", "mmdet")
    ours, stock = (ModelStep(name, work).run(0)[0].pred_instances for name in libraries)
    assert len(ours) == len(stock) == 5
    torch.testing.assert_close(ours.bboxes, stock.bboxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.scores, stock.scores)
    assert torch.equal(ours.labels, stock.labels)


def test_more_objects_than_nms_leaves():
    with pytest.raises(ValueError, match="NMS leaves .* objects of an image, not 1000000"):
        ModelStep("swin_mm", whole_workload("mmdet", objects=1_000_000))
