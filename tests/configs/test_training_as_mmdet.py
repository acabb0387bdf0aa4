"""A recipe trains as with all parts mmdet's: preprocessor, backbone, neck, heads and optimizer.

Only rounding may tell one from the other. In float64 losses are equal to ten digits, and in float32
those of our heads alone are to four, for fifty steps of the published schedule. Backbone, neck and
fused optimizer round otherwise in float32 than mmdet's, which now and then swaps two proposals of
almost the same score, and so a step's samples, as it does where a bit of a weight of mmdet's model
is changed.
"""

import copy

import pytest
import torch
from mmdet.models.task_modules import AnchorGenerator
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.structures import InstanceData
from recipe_tools import SIDES, cut, load, narrow, narrow_heads

PARTS = ("data_preprocessor", "backbone", "neck", "rpn_head", "roi_head")
CLASSES = 6


@pytest.fixture
def all_in_float64(monkeypatch):
    """Has what either side casts to float32 be float64 too: anchors, targets and images."""
    make_anchors = AnchorGenerator.grid_priors

    def make_exact_anchors(self, sizes, dtype=None, device="cuda"):
        return make_anchors(self, sizes, torch.float64, device)

    monkeypatch.setattr(AnchorGenerator, "grid_priors", make_exact_anchors)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def take_mmdets(cfg, parts):
    """Takes mmdet's classes for parts of the model, and mmengine's optimizer, in place."""
    if "backbone" in parts:
        del cfg.model.backbone["arch"]
    for part in parts:
        cfg.model[part].type = cfg.model[part].type.replace("swin_mm.", "mmdet.")
    cfg.optim_wrapper.update(type="OptimWrapper", constructor="DefaultOptimWrapperConstructor")
    cfg.optim_wrapper.optimizer.fused = False


def build_pair(name, dtype):
    """Configs and models, small, of the recipe and of mmdet's parts, with the same weights."""
    ours, stock = (load(name) for _ in range(2))
    for cfg in (ours, stock):
        cut(cfg.model)
        set_classes(cfg.model.roi_head)
        # As many samples as fill the registers of a CPU: see `test_heads_in_training`.
        cfg.model.train_cfg.rpn.sampler.num = 32
        narrow(cfg.model)
        for part in ("neck", "rpn_head", "roi_head"):
            narrow_heads(cfg.model[part])
        cfg.optim_wrapper.type = "swin_mm.OptimWrapper"  # no mixed precision
    take_mmdets(stock, PARTS)
    torch.manual_seed(0)
    models = [revert_sync_batchnorm(MODELS.build(cfg.model)) for cfg in (ours, stock)]
    models[1].init_weights()
    models[0].load_state_dict(models[1].state_dict(), strict=True)
    for part in PARTS:
        modules = [type(getattr(model, part)).__module__.split(".")[0] for model in models]
        assert modules == ["swin_mm", "mmdet"]
    for model in models:
        model.train()
        for child in (model.backbone, model.neck, model.rpn_head, model.roi_head):
            child.to(dtype)
    return (ours, models[0]), (stock, models[1])


def set_classes(node):
    """Tells all heads the number of classes, in place."""
    for key, value in node.items():
        if key == "num_classes":
            node[key] = CLASSES
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, dict):
                set_classes(child)


def draw_batch(seed):
    """Two images of noise with bright rectangles, which are the objects."""
    random = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for sides, number in ((SIDES, 3), ((SIDES[0] - 10, SIDES[1] - 30), 4)):
        corners = torch.rand(number, 2, 2, generator=random).sort(dim=1).values
        corners = corners * 0.8 + torch.tensor([[0.0], [0.2]])  # sides of a fifth and more
        boxes = (corners * torch.tensor(sides[::-1])).round().flatten(1)  # (G, 4)
        image = torch.randint(200, (3, *sides), generator=random, dtype=torch.uint8)
        masks = torch.zeros(number, *sides, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
            image[:, top:bottom, left:right] += 50
        labels = torch.randint(CLASSES, (number,), generator=random)
        instances = InstanceData(
            bboxes=boxes, labels=labels, masks=BitmapMasks(masks.numpy(), *sides)
        )
        sample = DetDataSample(metainfo=dict(img_shape=sides, ori_shape=sides))
        sample.gt_instances = instances
        images.append(image)
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def train(cfg, model, steps, dtype, **schedule):
    """Losses of each step, and what the generator of random numbers gives after it."""
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    warm_up = PARAM_SCHEDULERS.build({**cfg.param_scheduler[0], **schedule, "optimizer": wrapper})
    history = []
    for step in range(steps):
        data = model.data_preprocessor(draw_batch(step), training=True)
        data["inputs"] = data["inputs"].to(dtype)
        for sample in data["data_samples"]:
            sample.gt_instances.bboxes = sample.gt_instances.bboxes.to(dtype)
        torch.manual_seed(step)
        total, losses = model.parse_losses(model(**data, mode="loss"))
        wrapper.update_params(total)
        warm_up.step()
        losses = {name: value.item() for name, value in losses.items()}
        history.append(losses | dict(draw=torch.rand(1).item()))
    return history


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, steps, schedule",
    [
        ("mask_rcnn_swin_t", 8, {}),
        ("mask_rcnn_swin_t", 6, dict(end=2)),
        ("cascade_mask_rcnn_swin_t", 6, dict(end=2)),
    ],
    ids=["published schedule", "high rate", "high rate of a cascade"],
)
def test_losses_and_weights_in_float64(name, steps, schedule, all_in_float64):
    ours, stock = build_pair(name, torch.float64)
    if schedule:
        for cfg, _ in (ours, stock):
            cfg.optim_wrapper.optimizer.lr = 1e-3
    start = copy.deepcopy(ours[1].state_dict())
    found, expected = (train(*pair, steps, torch.float64, **schedule) for pair in (ours, stock))
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=1e-10, abs=1e-12), step
    translated = copy.deepcopy(ours[1])
    translated.load_state_dict(stock[1].state_dict(), strict=True)
    weights = ours[1].state_dict()
    for key, value in translated.state_dict().items():
        torch.testing.assert_close(weights[key], value, rtol=1e-8, atol=1e-8)
    moved = [not torch.equal(value, start[key]) for key, value in weights.items()]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.slow
def test_losses_of_the_whole_in_float32():
    ours, stock = build_pair("mask_rcnn_swin_t", torch.float32)
    found, expected = (train(*pair, 12, torch.float32) for pair in (ours, stock))
    equal = [
        a == pytest.approx(b, rel=1e-5, abs=1e-7) for a, b in zip(found, expected, strict=True)
    ]
    assert sum(equal) >= 10  # where no proposals were swapped
    for a, b in zip(found, expected, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)
