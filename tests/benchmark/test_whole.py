"""Whole models: a step of swin_mm's and of the stock one."""

import pytest
import torch
from small_work import small_work

from swin_mm.benchmark.backbones import MissingPeerError
from swin_mm.benchmark.whole import WholeStep, stock_config
from swin_mm.cli.config import load_config

CONFIGS = {"mmdet": "mask_rcnn_swin_mini_shapes", "mmseg": "upernet_swin_mini_shapes"}


def whole_work(framework, **changes):
    config = load_config(CONFIGS[framework])
    return small_work(part="config", sizes=((64, 96),), batch=1, config=config, **changes)


@pytest.mark.parametrize("framework", CONFIGS)
def test_stock_model_has_the_same_parameters(framework):
    work = whole_work(framework)
    shapes = []
    for library in ("swin_mm", framework):
        model = WholeStep(library, work, is_compiled=False).model
        shapes.append(sorted(tuple(p.shape) for p in model.parameters()))
    assert shapes[0] == shapes[1]
    assert type(model.backbone).__module__.startswith(framework)
    assert work.describe() == f"{CONFIGS[framework]}, 64x96, batch 1, inference, fp32"


@pytest.mark.parametrize("framework", CONFIGS)
def test_training_step_changes_weights(framework):
    step = WholeStep("swin_mm", whole_work(framework, mode="train"), is_compiled=False)
    weight = step.model.backbone.patch_embed.proj.weight
    before = weight.detach().clone()
    step.run(0)
    step.run(0)
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("framework", CONFIGS)
def test_prediction(framework):
    step = WholeStep("swin_mm", whole_work(framework), is_compiled=False)
    (found,) = step.run(0)
    assert hasattr(found, "pred_instances" if framework == "mmdet" else "pred_sem_seg")


def test_what_cannot_be_built():
    with pytest.raises(MissingPeerError, match="timm has no model for a config of mmdet"):
        WholeStep("timm", whole_work("mmdet"), is_compiled=False)
    with pytest.raises(ValueError, match="float16 training of a whole model needs a GPU"):
        WholeStep("swin_mm", whole_work("mmdet", mode="train", dtype="fp16"), is_compiled=False)
    cfg = load_config(CONFIGS["mmdet"], {"model.backbone.type": "swin_mm.SwinTransformerV2"})
    with pytest.raises(MissingPeerError, match="mmdet has no class for swin_mm.SwinTransformerV2"):
        stock_config(cfg)


def test_stock_config_leaves_the_given_one_alone():
    cfg = load_config(CONFIGS["mmdet"])
    assert stock_config(cfg).model.neck.type == "mmdet.FPN"
    assert cfg.model.neck.type == "swin_mm.FPN"
    assert cfg.model.backbone.type == "swin_mm.SwinTransformer"
