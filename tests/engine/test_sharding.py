"""Models divided among processes train as in one process."""

import pytest
import shard_training
import torch
from mmengine.registry import MODELS
from shard_training import differences, train, train_divided
from torch import nn

from swin_mm.engine.sharding import MIN_PARAMETERS, list_units
from swin_mm.models.layers import SwinBlock

DECAY = dict(
    constructor="swin_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.5),
    clip_grad=dict(type="value", clip_value=0.01),
)
CASES = {
    "averaged, with LoRA": (2, dict(ema=True, lora=dict(r=2))),
    "checkpointed, partly frozen": (
        4,
        dict(settings=DECAY, frozen_stages=1, with_cp=True, group_size=2),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_one_process(case):
    world, settings = CASES[case]
    pytest.importorskip("peft")
    arguments = dict(name="mask_rcnn_swin_t", steps=2, **settings)
    alone, divided = train(**arguments), train_divided(world, **arguments)
    losses, weights = differences(divided, alone)
    assert losses < 1e-5 and weights < 1e-5
    assert divided["own"] < 0.6 * alone["own"]  # both are divided by two


def test_blocks_and_large_layers_are_units_and_what_is_read_is_none():
    cfg = shard_training.load("mask2former_swin_t").model
    with torch.device("meta"):
        model = MODELS.build(cfg)
    names = {module: name for name, module in model.named_modules()}
    units = list_units(model, MIN_PARAMETERS)
    blocks = [module for module in model.modules() if isinstance(module, SwinBlock)]
    assert set(blocks) < set(units) and len(blocks) == 12
    others = {names[unit] for unit in units if unit not in blocks}
    decoder = "panoptic_head.transformer_decoder.layers"
    assert {f"{decoder}.{i}" for i in range(9)} <= others
    assert "backbone.layers.2.downsample.reduction" in others  # 4 * 384 to 768
    for unit in units:
        assert not isinstance(unit, nn.Embedding | nn.ModuleList | nn.Sequential)
        assert not hasattr(unit, "predict")
