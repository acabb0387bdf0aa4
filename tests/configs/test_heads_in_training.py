"""Training with the batched heads of the recipes goes step by step as with mmdet's."""

import copy

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS
from recipe_tools import cut, detection_data, load, narrow, narrow_heads

from swin_mm.heads.ops import roi_align
from swin_mm.inference.roi_masks import predicts_roi_masks

STEPS = 4
BIT_STEPS = 4
OUR_PARTS = ("rpn_head", "roi_head")


def build(name, with_stock_heads):
    """The recipe's model, small; and its stock twin."""
    torch.manual_seed(0)
    cfg = load(name).model
    cut(cfg)
    narrow(cfg)
    for part in ("neck", "rpn_head", "roi_head"):
        narrow_heads(cfg[part])
    cfg.backbone.drop_path_rate = 0.0
    # As many samples as fill the registers of a CPU: see `test_weights_are_...`.
    cfg.train_cfg.rpn.sampler.num = 32
    for part in OUR_PARTS:
        assert cfg[part].type.startswith("swin_mm.")
        if with_stock_heads:
            cfg[part].type = cfg[part].type.replace("swin_mm.", "mmdet.")
    model = revert_sync_batchnorm(MODELS.build(cfg))
    model.init_weights()
    return model.train()


def train(model, batches, lr=1e-4):
    """The losses of each step."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    history = []
    for batch in batches:
        data = model.data_preprocessor(copy.deepcopy(batch), training=True)
        total, losses = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    return history


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "cascade_mask_rcnn_swin_t"])
def test_losses_of_each_step_are_those_with_mmdets_heads(name, monkeypatch):
    # The CPU's pooling rounds otherwise, by 1e-6, which AdamW and sampling enlarge within steps.
    monkeypatch.setattr(roi_align, "why_not_sparse", lambda maps, rois: "as on a GPU")
    ours, theirs = (build(name, with_stock_heads) for with_stock_heads in (False, True))
    for part in OUR_PARTS:
        assert type(getattr(ours, part)) is not type(getattr(theirs, part))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    batches = [detection_data(), detection_data()] * (STEPS // 2)
    expected, found = (train(model, batches) for model in (theirs, ours))
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-7), step
    assert len({losses["loss"] for losses in found}) == STEPS  # samples and weights change
    assert predicts_roi_masks(ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "cascade_mask_rcnn_swin_t"])
def test_weights_are_those_with_mmdets_heads_to_the_bit(name, monkeypatch):
    """Where the number of anchors of a batch is a multiple of 32 on every level.

    A CPU computes sigmoids by 32 and the rest, at the end of a tensor, by another function, which
    now and then rounds otherwise. mmdet's tensors are the anchors of a level and ours the sampled
    ones, so that in other sizes a gradient may differ in its last bit, as no GPU's does.
    """
    monkeypatch.setattr(roi_align, "why_not_sparse", lambda maps, rois: "as on a GPU")
    batches = [
        demo_mm_inputs(2, [(3, 256, 256)] * 2, num_items=[3, 4], num_classes=6, with_mask=True)
        for _ in range(2)
    ]
    batches *= BIT_STEPS // 2
    states, histories = [], []
    for with_stock_heads in (False, True):
        model = build(name, with_stock_heads)
        histories.append(train(model, batches, lr=1e-3))
        states.append(model.state_dict())
    for step, (ours, theirs) in enumerate(zip(*histories, strict=True)):
        # The sum of a level's losses goes over sampled anchors, mmdet's over all with zeros.
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9), step
    for key, value in states[1].items():
        assert torch.equal(states[0][key], value), key
