"""Which recipes can be exported, and what a file says of how images are read."""

import pytest
from mmengine.registry import MODELS, init_default_scope
from tiny_models import DATASET, build, dense

from swin_mm.cli.config import load_config
from swin_mm.export.plan import ExportError, make_plan

TINY = dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), init_cfg=None, arch=None)


def plan_of(recipe):
    cfg = load_config(recipe)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(TINY)
    return make_plan(MODELS.build(cfg.model), cfg.test_dataloader.dataset, "model")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("reppoints_swin_t_3x", "RepPointsDetector cannot be exported: its deformable"),
        ("reppoints_v2_swin_t_3x", "RepPointsDetector cannot be exported: its deformable"),
        ("mask_reppoints_v2_swin_t_3x", "RepPointsDetector cannot be exported: its deformable"),
        ("htc_swin_b_6x", "soft NMS is in no standard operator: .*rcnn.nms.type=nms"),
        ("atss_dyhead_swin_l_2x", "deformable convolutions"),
    ],
)
def test_recipes_that_cannot_be_exported_say_why(recipe, reason):
    with pytest.raises(ExportError, match=reason):
        plan_of(recipe)


@pytest.mark.parametrize(
    ("recipe", "task", "scale"),
    [
        ("cascade_mask_rcnn_swin_v2_t", "instance segmentation", [1333, 800]),
        ("atss_swin_t_3x", "detection", [1333, 800]),
        ("upernet_swin_t", "semantic segmentation", [2048, 512]),
        ("mask2former_swin_t_panoptic", "panoptic segmentation", [1333, 800]),
    ],
)
def test_recipes_that_can_be_exported(recipe, task, scale):
    plan = plan_of(recipe)
    assert plan.task == task
    assert plan.resize == dict(scale=scale, keep_ratio=True)
    assert plan.padding == [124, 116, 104]  # the mean colour


@pytest.mark.parametrize(
    ("steps", "rule"),
    [
        ([], None),
        ([dict(type="Resize", scale_factor=1.0)], None),
        ([dict(type="Resize", scale_factor=(0.5, 2.0))], dict(factor=[0.5, 2.0])),
        ([dict(type="mmdet.Resize", scale=(90, 60))], dict(scale=[90, 60], keep_ratio=False)),
    ],
)
def test_the_rule_of_resizing_is_that_of_the_test_pipeline(steps, rule):
    dataset = dict(DATASET, pipeline=[dict(type="LoadImageFromFile"), *steps])
    assert make_plan(build(dense("ATSSHead")), dataset, "backbone").resize == rule


@pytest.mark.parametrize(
    ("settings", "turn"),
    [
        ({}, True),
        (dict(color_type="color_ignore_orientation"), False),
        (dict(color_type="unchanged"), False),
        (dict(imdecode_backend="pillow"), True),
    ],
)
def test_images_are_turned_where_the_test_pipeline_turns_them(settings, turn):
    dataset = dict(DATASET, pipeline=[dict(type="LoadImageFromFile", **settings)])
    assert make_plan(build(dense("ATSSHead")), dataset, "backbone").turn is turn


def test_several_sizes_are_refused():
    steps = [dict(type="Resize", scale_factor=0.5), dict(type="RandomResize", scale=(8, 8))]
    with pytest.raises(ExportError, match="must have one Resize, got Resize, RandomResize"):
        make_plan(build(dense("ATSSHead")), dict(DATASET, pipeline=steps), "backbone")
