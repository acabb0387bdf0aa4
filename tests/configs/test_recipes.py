"""Every config builds in its published size; those of the built-in data fit it, learn and predict.

The families on public data are tested in `test_detection_recipes` and `test_segmentation_recipes`.
"""

import re

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS
from recipe_tools import (
    NAMES,
    SIDES,
    build_on_meta,
    learn_and_predict,
    load,
    read_docstring,
)


def test_there_are_configs():
    assert {"mask_rcnn_swin_t", "upernet_swin_t"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_builds_with_the_parameters_that_are_published(name):
    """In full size; the number is quoted by the recipe, to the million."""
    parameters = sum(p.numel() for p in build_on_meta(load(name)).parameters())
    published = re.search(r"published: .*?(\d+)M parameters", read_docstring(name))
    if published:
        assert round(parameters / 1e6) == int(published[1])
    else:
        assert parameters > 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if "_shapes" in n or "_context" in n])
def test_model_learns_and_predicts(name):
    """One loss with a backward pass, and one prediction, at a size that windows do not divide."""
    cfg = load(name)
    found, *_ = learn_and_predict(cfg)
    if cfg.default_scope == "mmdet":
        assert found.pred_instances.masks.shape[1:] == SIDES
    else:
        assert found.pred_sem_seg.data.shape == (1, *SIDES)


@pytest.mark.parametrize(
    ("name", "lr", "decay"), [("mask_rcnn_swin_t", 1e-4, 0.05), ("upernet_swin_t", 6e-5, 0.01)]
)
def test_no_decay_for_norms_and_position_tables(name, lr, decay):
    cfg = load(name)
    model = build_on_meta(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    assert len(groups) <= 3  # with decay, without, and what no rule names
    assert sum(len(group["params"]) for group in groups) == len(names)
    assert isinstance(wrapper.optimizer, torch.optim.AdamW)
    for group in groups:
        for parameter in group["params"]:
            free = any(k in names[id(parameter)] for k in ("norm", "relative_position_bias_table"))
            assert group["weight_decay"] == (0 if free else decay), names[id(parameter)]
        assert group["lr"] == lr and group["betas"] == (0.9, 0.999) and group["fused"]
    assert cfg.optim_wrapper.get("clip_grad") is None


@pytest.mark.parametrize("name", [n for n in NAMES if "_context" in n])
def test_context_configs_differ_from_their_twins_in_the_context_alone(name):
    mixed, plain = load(name), load(name.replace("_context", ""))
    assert tuple(mixed.model.backbone.pop("context_scales")) == ("window", "global")
    assert mixed.to_dict() == plain.to_dict()


def test_upernet_is_the_official_160k():
    cfg = load("upernet_swin_t")
    assert cfg.train_cfg.max_iters == 160_000
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.start_factor, warm_up.end) == ("LinearLR", 1e-6, 1500)
    assert (decay.type, decay.power, decay.begin, decay.end) == ("PolyLR", 1.0, 1500, 160_000)
    assert cfg.model.backbone.drop_path_rate == 0.3
    assert tuple(cfg.model.data_preprocessor.size) == (512, 512)
    assert (cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size) == (2, 16)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_shapes")])
def test_twins_fit_their_data(name, tmp_path):
    """Head and data agree on the classes, drawn as in the preset `tiny`."""
    cfg = load(name)
    dataset_cfg = cfg.train_dataloader.dataset
    dataset_cfg.data_root = str(tmp_path / "tiny") + "/"
    dataset = DATASETS.build(dataset_cfg)
    classes = len(dataset.metainfo["classes"])
    if cfg.default_scope == "mmdet":
        heads = [cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head]
    else:
        heads = [cfg.model.decode_head, cfg.model.auxiliary_head]
    assert [head.num_classes for head in heads] == [classes, classes]
    assert len(dataset) > 0 and dataset[0]["inputs"].shape[0] == 3
