"""Training with the batched heads of the recipes goes step by step as with mmdet's."""

import copy

import pytest
import torch
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import MODELS
from recipe_tools import cut, detection_data, load, narrow

from swin_mm.inference.roi_masks import predicts_roi_masks
from swin_mm.ops import roi_align

STEPS = 10
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
    for part in OUR_PARTS:
        assert cfg[part].type.startswith("swin_mm.")
        if with_stock_heads:
            cfg[part].type = cfg[part].type.replace("swin_mm.", "mmdet.")
    model = revert_sync_batchnorm(MODELS.build(cfg))
    model.init_weights()
    return model.train()


def narrow_heads(node):
    """Takes 32 channels for the 256 of neck and heads, in place."""
    for key, value in node.items():
        if key.endswith("channels") and isinstance(value, int):
            node[key] = {256: 32, 1024: 64}.get(value, value)
        for child in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(child, dict):
                narrow_heads(child)


def train(model, batches):
    """The losses of each step."""
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    history = []
    for batch in batches:
        data = model.data_preprocessor(copy.deepcopy(batch), training=True)
        total, losses = model.parse_losses(model(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    return history


@pytest.mark.parametrize("name", ["mask_rcnn_swin_t", "cascade_mask_rcnn_swin_t"])
def test_losses_of_each_step_are_those_with_mmdets_heads(name, monkeypatch):
    # The CPU's pooling rounds otherwise, by 1e-6, which AdamW and sampling enlarge within steps.
    monkeypatch.setattr(roi_align, "refusal", lambda maps, rois: "as on a GPU")
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
