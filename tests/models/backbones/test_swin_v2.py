"""The V2 backbone against timm's and torchvision's, and what it promises beyond them."""

import copy

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwinV2
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    SwinTransformerBlockV2,
)
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from swin_mm.checkpoint.layouts import TIMM, TORCHVISION
from swin_mm.models.backbones.arguments import ARCHS
from swin_mm.models.backbones.swin_v2 import SwinTransformerV2
from swin_mm.models.layers import CosineWindowAttention

SMALL = dict(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)


def randomise(model, seed=0):
    """Every parameter off its initial value; in float64, logit scales on both sides of the clamp.

    In float32, factors near 100 would leave fewer than five digits of a gradient to compare.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            if name.endswith("logit_scale") and parameter.dtype == torch.float64:
                parameter.add_(3 * torch.rand(parameter.shape, generator=generator))
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def timm_maps(model, image):
    """The map of each stage, normed as our output norms of unit weight do."""
    x = model.patch_embed(image)
    maps = []
    for layer in model.layers:
        x = layer(x)
        maps.append(torch.nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
    return maps


def torchvision_maps(model, image):
    x = image
    maps = []
    for i, part in enumerate(model.features):
        x = part(x)
        if i % 2:
            maps.append(torch.nn.functional.layer_norm(x, x.shape[-1:]).permute(0, 3, 1, 2))
    return maps


def assert_equal(ours, stock, stock_maps, layout, size, dtype):
    """Maps, and gradients of the image and every parameter, with the same weights."""
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[dtype]
    ours, stock = ours.to(dtype), stock.to(dtype)
    own = layout.to_own(randomise(stock).state_dict()).state
    missing, _ = ours.load_state_dict(own, strict=False)
    assert all(name.startswith("norm") for name in missing)
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    found, wanted = image.clone().requires_grad_(), image.clone().requires_grad_()
    maps, expected = ours(found), stock_maps(stock, wanted)
    assert len(maps) == len(expected)
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(m.shape, generator=generator) for m in expected]
    for a, b in zip(maps, expected, strict=True):
        assert a.shape == b.shape
        assert relative_error(a, b) < tolerance
    for outputs in (maps, expected):
        sum((m * d).sum() for m, d in zip(outputs, direction, strict=True)).backward()
    assert relative_error(found.grad, wanted.grad) < tolerance
    # Gradients travel as weights do.
    grads = {name: p.grad for name, p in stock.named_parameters() if p.grad is not None}
    own_grads = layout.to_own(grads).state
    assert own_grads.keys() == {n for n, p in ours.named_parameters() if n[:4] != "norm"}
    for name, grad in own_grads.items():
        # A scale's gradient is a sum over all pairs that nearly cancels: in float32 its
        # rounding depends on the order of additions, in float64 it is as close as others.
        allowed = 50 * tolerance if name.endswith("logit_scale") else tolerance
        assert relative_error(ours.get_parameter(name).grad, grad) < allowed, name


BOTH_DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@BOTH_DTYPES
@pytest.mark.parametrize(
    ("window", "pretrained", "size"),
    [
        (8, (0, 0), (96, 128)),
        (8, (4, 6), (128, 128)),
        ((4, 6), (0, 0), (64, 96)),
        (16, (8,), (128, 192)),
        (24, (12,), (192, 192)),
    ],
    ids=str,
)
def test_outputs_equal_timms(window, pretrained, size, dtype):
    """Maps larger than their window and divisible by it: elsewhere timm shifts differently."""
    stages = len(pretrained)
    arguments = dict(depths=(2, 3)[:stages], num_heads=(1, 2)[:stages], embed_dims=24)
    ours = SwinTransformerV2(
        **arguments,
        strides=(4, 2)[:stages],
        out_indices=range(stages),
        window_size=window,
        pretrained_window_sizes=pretrained,
        drop_path_rate=0.0,
    )
    arguments["embed_dim"] = arguments.pop("embed_dims")
    stock = TimmSwinV2(
        **arguments,
        img_size=size,
        window_size=window,
        pretrained_window_sizes=pretrained,
        drop_path_rate=0.0,
        num_classes=0,
    )
    assert_equal(ours, stock, timm_maps, TIMM, size, dtype)


@BOTH_DTYPES
@pytest.mark.parametrize("window", [8, (5, 7)], ids=str)
@pytest.mark.parametrize("size", [(128, 160), (97, 141), (75, 202)], ids=str)
def test_outputs_equal_torchvisions(window, size, dtype):
    """Any size: torchvision pads as we do, and shifts where the padded map exceeds the window."""
    stages = 2
    arguments = dict(depths=(2, 3), num_heads=(1, 2), window_size=window)
    ours = SwinTransformerV2(
        **arguments, embed_dims=24, strides=(4, 2), out_indices=range(stages), drop_path_rate=0.0
    )
    arguments["window_size"] = [window, window] if isinstance(window, int) else list(window)
    stock = TorchvisionSwin(
        [4, 4],
        24,
        **arguments,
        stochastic_depth_prob=0.0,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    )
    cut = tuple(side // 4 * 4 for side in size)  # torchvision drops what is no whole patch
    assert_equal(ours, stock, torchvision_maps, TORCHVISION, cut, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_bias_table_is_as_precise_in_half_precision(dtype):
    """It is computed in float32, from the weights that the half precision layer has."""
    layer = CosineWindowAttention(24, 2, (24, 24), pretrained_window_size=(12, 12)).to(dtype)
    exact = copy.deepcopy(layer).double().bias_table()
    assert layer.bias_table().dtype == torch.float32
    torch.testing.assert_close(layer.bias_table().double(), exact, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer.bias_table().double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("arch", ["tiny", "small", "base", "large"])
def test_variants_have_the_parameters_of_timm(arch):
    variant = ARCHS[arch]
    with torch.device("meta"):
        ours = SwinTransformerV2(arch=arch)
        stock = TimmSwinV2(
            embed_dim=variant.embed_dims,
            depths=variant.depths,
            num_heads=variant.num_heads,
            window_size=8,
            num_classes=0,
        )
    shapes = {name: p.shape for name, p in TIMM.to_own(stock.state_dict()).state.items()}
    found = {name: p.shape for name, p in ours.state_dict().items() if not name.startswith("norm")}
    assert found == shapes


def test_window_and_training_window_of_each_stage():
    model = SwinTransformerV2(
        **SMALL, window_size=(16, 16, 16, 8), pretrained_window_sizes=(8, (4, 6), 0, 0)
    )
    layers = [stage.blocks[0].attn for stage in model.layers]
    assert [layer.window_size for layer in layers] == [(16, 16)] * 3 + [(8, 8)]
    assert [layer.position_unit for layer in layers] == [(8, 8), (4, 6), (16, 16), (8, 8)]


def test_extra_norms_follow_every_n_blocks():
    arguments = dict(embed_dims=8, num_heads=(2,), strides=(4,), out_indices=(0,))
    model = SwinTransformerV2(**arguments, depths=(5,), extra_norm_every_n_blocks=2).eval()
    blocks = model.layers[0].blocks
    assert [block.norm3 is not None for block in blocks] == [False, True, False, True, False]
    x = torch.randn(1, 8, 8, 8)
    extra, blocks[1].norm3 = blocks[1].norm3, None
    torch.nn.init.normal_(extra.weight)
    expected = extra(blocks[1](x))
    blocks[1].norm3 = extra
    assert torch.equal(blocks[1](x), expected)


def test_blocks_begin_as_the_identity():
    model = SwinTransformerV2(**SMALL)
    x = torch.randn(1, 9, 13, 24)
    assert torch.equal(model.layers[0](x), x)
    attn = model.layers[0].blocks[0].attn
    assert attn.logit_scale.exp().flatten().tolist() == pytest.approx([10])


def test_without_a_bias_of_query_and_value():
    names = {name for name, _ in SwinTransformerV2(**SMALL, qkv_bias=False).named_parameters()}
    assert not any("q_bias" in name or "v_bias" in name or "qkv.bias" in name for name in names)
    model = randomise(SwinTransformerV2(**SMALL, qkv_bias=False))
    biased = SwinTransformerV2(**SMALL)
    with torch.no_grad():
        for name, parameter in biased.named_parameters():
            if name in names:
                parameter.copy_(model.get_parameter(name))
    image = torch.randn(1, 3, 97, 141)
    for found, expected in zip(model(image), biased(image), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(pretrained_window_sizes=8), "pretrained_window_sizes must name all 4 stages"),
        (dict(pretrained_window_sizes=(8, 8)), "must name all 4 stages, .* got .8, 8."),
        (dict(pretrained_window_sizes=(8, 8, 8, -1)), r"pretrained_window_sizes\[3\] must be a"),
        (dict(window_size=(8, 8, 8)), "or give one for each of the 4 stages"),
        (dict(window_size=(8, 8, 8, 0)), r"window_size\[3\] must be a positive int"),
        (dict(extra_norm_every_n_blocks=-1), "extra_norm_every_n_blocks must be 0 or more, got -1"),
        (dict(attn_backend="fast"), "attn_backend must be one of"),
    ],
    ids=str,
)
def test_arguments_that_disagree_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinTransformerV2(**arguments)
