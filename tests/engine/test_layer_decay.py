"""Layer-wise decay: rate and weight decay of every parameter, against other people's rules."""

import pytest
import timm
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from timm.optim import param_groups_layer_decay
from torch import nn

from swin_mm import SwinTransformer, SwinTransformerV2

LR, WEIGHT_DECAY, RATE = 0.002, 0.05, 0.8
# Shapes do not matter beyond the number of dimensions, and values not at all.
NARROW = dict(embed_dims=24, num_heads=(1, 2, 4, 8))
BACKBONES = {"V1-T": SwinTransformer, "V2-T": SwinTransformerV2}


class Detector(BaseModule):
    """A Swin inside of something, with parameters before and after it."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(768, 4, 1)
        self.query_embed = nn.Embedding(3, 4)


def settings(model, **paramwise):
    """Rate and decay of each trained parameter, and how many groups there are."""
    cfg = dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=LR, weight_decay=WEIGHT_DECAY),
        constructor="swin_mm.LayerDecayOptimWrapperConstructor",
        paramwise_cfg={"layer_decay_rate": RATE, **paramwise},
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {}
    for group in groups:
        for parameter in group["params"]:
            assert names[parameter] not in found
            found[names[parameter]] = (group["lr"], group["weight_decay"])
    return found, len(groups)


def expected_by_simmim(name, dim):
    """The rule of microsoft/SimMIM, by hand, for a parameter of a Swin-T."""
    parts = name.split(".")
    first_block = {"0": 1, "1": 3, "2": 5, "3": 11}  # of each stage; patches are layer 0
    if parts[0] in ("patch_embed", "absolute_pos_embed"):
        layer = 0
    elif parts[0] != "layers":
        layer = 13
    elif parts[2] == "blocks":
        layer = first_block[parts[1]] + int(parts[3])
    else:
        assert parts[2] == "downsample"
        layer = {"0": 2, "1": 4, "2": 10}[parts[1]]
    keywords = ("relative_position_bias_table", "cpb_mlp", "logit_scale", "absolute_pos_embed")
    decays = dim > 1 and parts[-1] != "bias" and not any(word in name for word in keywords)
    return pytest.approx(LR * 0.8 ** (13 - layer)), WEIGHT_DECAY if decays else 0.0


@pytest.mark.parametrize("version", BACKBONES)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a detector"])
def test_every_parameter_has_the_published_rate_and_decay(version, inside):
    with torch.device("meta"):
        backbone = BACKBONES[version](use_abs_pos_embed=True)
    model = Detector(backbone) if inside else backbone
    found, num_groups = settings(model)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = expected_by_simmim(name.removeprefix("backbone."), parameter.dim())
        assert found[name] == expected, name
    # With and without decay for each of 14 layers; alone, the last has nothing but norms.
    assert num_groups == (28 if inside else 27)


@pytest.mark.parametrize("version", BACKBONES)
def test_every_parameter_has_what_timm_gives_it(version):
    found, _ = settings(BACKBONES[version](**NARROW))
    name = {"V1-T": "swin_tiny_patch4_window7_224", "V2-T": "swinv2_tiny_window8_256"}[version]
    narrow = dict(embed_dim=24, num_heads=NARROW["num_heads"])
    model = timm.create_model(name, num_classes=3, **narrow)
    groups = param_groups_layer_decay(
        model, WEIGHT_DECAY, model.no_weight_decay(), layer_decay=RATE
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    compared = 0
    for group in groups:
        for parameter in group["params"]:
            key = names[parameter]
            # timm has merging at the start of a stage, and counts it to the block behind it, and
            # the one output norm that it has to the last block.
            if ".downsample." in key or key.startswith(("norm.", "head.")):
                continue
            rate = pytest.approx(LR * group["lr_scale"])
            assert found[key] == (rate, group["weight_decay"]), key
            compared += 1
    assert compared == len(found) - 8 - 9  # output norms; merging


def test_mixed_context_decays_towards_plain_attention():
    found, _ = settings(SwinTransformer(**NARROW, context_scales=("window",)))
    name = "layers.3.blocks.1.attn.context_mix"
    assert found[name] == (pytest.approx(LR * 0.8), WEIGHT_DECAY)


def test_frozen_parameters_and_unused_stages_are_left_out():
    model = SwinTransformer(**NARROW, frozen_stages=1, out_indices=(1, 2))
    found, _ = settings(model)
    assert not any(name.startswith(("patch_embed", "layers.0", "layers.3")) for name in found)
    # Ten blocks are built, so the last of them is one below the top.
    assert found["layers.2.blocks.5.attn.qkv.weight"][0] == pytest.approx(LR * 0.8)


def test_options_of_mmengine_multiply():
    keys = {"blocks.1.mlp": dict(lr_mult=0.5), "head": dict(lr_mult=10.0, decay_mult=0.1)}
    found, _ = settings(Detector(SwinTransformer(**NARROW)), custom_keys=keys)
    rate, decay = found["backbone.layers.3.blocks.1.mlp.fc1.weight"]
    assert (rate, decay) == (pytest.approx(LR * 0.8 * 0.5), WEIGHT_DECAY)
    assert found["head.weight"] == (pytest.approx(LR * 10), pytest.approx(WEIGHT_DECAY * 0.1))
    assert found["head.bias"] == (pytest.approx(LR * 10), 0.0)
    assert found["query_embed.weight"] == (LR, WEIGHT_DECAY)


@pytest.mark.parametrize("rate", [None, 0, 1.5, "0.9"])
def test_rate_must_make_sense(rate):
    with pytest.raises(ValueError, match=r"layer_decay_rate must be above 0 .* got " + str(rate)):
        settings(SwinTransformer(**NARROW), layer_decay_rate=rate)


def test_models_without_a_swin_are_refused():
    with pytest.raises(ValueError, match="needs a backbone swin_mm.SwinTransformer .* Linear has"):
        settings(nn.Linear(2, 2))


def test_schedules_scale_every_group():
    from mmengine.optim import LinearLR

    model = nn.Sequential(SwinTransformer(**NARROW))
    cfg = dict(
        optimizer=dict(type="SGD", lr=1.0),
        constructor="swin_mm.LayerDecayOptimWrapperConstructor",
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    wrapper = build_optim_wrapper(model, cfg)
    before = [group["lr"] for group in wrapper.optimizer.param_groups]
    LinearLR(wrapper, start_factor=0.1, begin=0, end=10, by_epoch=False)
    after = [group["lr"] for group in wrapper.optimizer.param_groups]
    torch.testing.assert_close(after, [rate * 0.1 for rate in before])
