"""The V1 backbone against mmdet's, mmseg's and torchvision's, and what it promises beyond them."""

import inspect

import pytest
import torch
import torchvision
from mmcv.cnn.bricks import DropPath
from mmdet.models.backbones.swin import SwinTransformer as MMDetSwin
from mmseg.models.backbones.swin import SwinTransformer as MMSegSwin
from timm.models.swin_transformer import SwinTransformer as TimmSwin

from swin_mm.models.backbones.arguments import ARCHS
from swin_mm.models.backbones.swin import SwinTransformer

SMALL = dict(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)
SIZES = [(64, 64), (97, 141), (224, 224), (5, 230)]


def pair(stock_class, **arguments):
    """A stock backbone with random weights, and ours with the same."""
    torch.manual_seed(0)
    arguments = SMALL | arguments
    stock = stock_class(**arguments)
    for parameter in stock.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    ours = SwinTransformer(**arguments)
    ours.load_state_dict(stock.state_dict(), strict=True)
    return stock, ours


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm().clamp_min(1e-12)).item()


def assert_equal(stock, ours, size, mode):
    """Outputs and the gradients of the image and of every parameter, to 1e-5."""
    torch.manual_seed(1)
    image = torch.randn(2, 3, *size)
    gradients = []
    for model in (stock, ours):
        model.train(mode == "train")
        leaf = image.clone().requires_grad_()
        maps = model(leaf)
        torch.manual_seed(2)
        loss = sum((m * torch.randn(m.shape)).sum() for m in maps)
        loss.backward()
        state = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        gradients.append((maps, leaf.grad, state))
    (stock_maps, stock_image, stock_state), (maps, image_grad, state) = gradients
    assert len(maps) == len(stock_maps)
    for ours_map, stock_map in zip(maps, stock_maps, strict=True):
        assert ours_map.shape == stock_map.shape
        assert relative_error(ours_map, stock_map) < 1e-5
    assert relative_error(image_grad, stock_image) < 1e-5
    # Gradients travel as weights do: the layout's converter brings them to our names and order.
    from swin_mm.checkpoint.layouts import MMDET

    converted = MMDET.to_own(stock_state).state
    assert converted.keys() == state.keys()
    for name, grad in state.items():
        assert relative_error(grad, converted[name]) < 1e-5, name


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stock", [MMDetSwin, MMSegSwin], ids=["mmdet", "mmseg"])
def test_outputs_equal_the_stock_backbones(stock, size, mode):
    assert_equal(*pair(stock), size, mode)


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_equal_to_stock_with_either_backend(backend):
    stock, _ = pair(MMSegSwin)
    ours = SwinTransformer(**SMALL, attn_backend=backend)
    ours.load_state_dict(stock.state_dict())
    assert_equal(stock, ours, (97, 141), "train")


@pytest.mark.parametrize(
    "arguments",
    [
        dict(strides=(4, 2, 2, 1)),
        dict(strides=(2, 2, 2, 2), patch_size=2),
        dict(qkv_bias=False),
        dict(qk_scale=0.1),
        dict(patch_norm=False),
        dict(mlp_ratio=2.5),
        dict(window_size=4),
        dict(in_channels=3, act_cfg=dict(type="ReLU")),
        dict(norm_cfg=dict(type="LN", eps=1e-2)),
        dict(depths=(1, 3), num_heads=(2, 4), strides=(4, 2), out_indices=(0, 1)),
    ],
    ids=str,
)
def test_arguments_mean_what_they_mean_in_stock(arguments):
    assert_equal(*pair(MMSegSwin, **arguments), (53, 67), "train")


def test_absolute_position_embedding():
    stock, ours = pair(MMSegSwin, use_abs_pos_embed=True, pretrain_img_size=(64, 96))
    assert_equal(stock, ours, (64, 96), "train")
    assert [m.shape[2:] for m in ours(torch.zeros(1, 3, 80, 50))][0] == (20, 13)


def torchvision_classifier():
    """A classifier, and a function from an image to the maps of its stages, the last normed."""
    stock = torchvision.models.swin_transformer.SwinTransformer(
        [4, 4], 24, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7], stochastic_depth_prob=0.0
    ).eval()

    def run(image):
        maps = [image]
        for part in stock.features:
            maps.append(part(maps[-1]))
        return [*maps[2:8:2], stock.norm(maps[8])]

    return stock, run


def timm_classifier():
    """As for torchvision."""
    stock = TimmSwin(embed_dim=24, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8)).eval()
    seen = []
    for stage in stock.layers:
        stage.blocks.register_forward_hook(lambda module, given, out: seen.append(out))

    def run(image):
        seen.clear()
        last = stock.forward_features(image)
        return [*seen[:3], last]

    return stock, run


@pytest.mark.parametrize("build", [torchvision_classifier, timm_classifier])
@torch.no_grad()
def test_equal_to_classifiers_but_for_a_map_of_one_window(build):
    """At 224 pixels the last stage is one window of 7, which classifiers do not shift.

    mmdet and mmseg do, see `test_equal_to_stock`. At 448 every map is larger than its window.
    """
    torch.manual_seed(0)
    stock, run = build()
    for parameter in stock.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    stock.norm.reset_parameters()  # a classifier's is no norm of a map
    ours = SwinTransformer(**SMALL, out_indices=(3,)).eval()
    ours.load_state_dict(stock.state_dict())
    seen = []
    for stage in ours.layers:
        stage.blocks[-1].register_forward_hook(lambda module, given, out: seen.append(out))

    def errors(size):
        seen.clear()
        image = torch.randn(1, 3, size, size)
        (last,) = ours(image)
        found = [*seen[:3], last.permute(0, 2, 3, 1)]
        return [relative_error(*pair) for pair in zip(found, run(image), strict=True)]

    if build is torchvision_classifier:  # timm's take images of one size
        assert max(errors(448)) < 1e-5
    *small, last = errors(224)
    assert max(small) < 1e-5 and last > 1e-3
    ours.layers[3].blocks[1].attn.shift_size = (0, 0)
    assert max(errors(224)) < 1e-5


@pytest.mark.parametrize("stock", [MMDetSwin, MMSegSwin], ids=["mmdet", "mmseg"])
def test_takes_every_argument_of_stock_with_its_default(stock):
    ours = inspect.signature(SwinTransformer).parameters
    tiny = ARCHS["tiny"]._asdict() | dict(act_cfg=dict(type="GELU"), norm_cfg=dict(type="LN"))
    for name, parameter in inspect.signature(stock).parameters.items():
        default = ours[name].default
        assert (tiny[name] if default is None and name in tiny else default) == parameter.default


@pytest.mark.parametrize(
    ("arch", "millions"), [("tiny", 27.5), ("small", 48.8), ("base", 86.7), ("large", 194.9)]
)
def test_variants_have_the_published_number_of_parameters(arch, millions):
    """As timm's classifiers have without the head, to the norms at the outputs."""
    with torch.device("meta"):
        model = SwinTransformer(arch=arch)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2, 3, 4])
def test_frozen_stages_are_those_of_stock(frozen_stages):
    stock, ours = pair(MMDetSwin, frozen_stages=frozen_stages, use_abs_pos_embed=True)
    stock._freeze_stages()
    frozen = {n for n, p in ours.named_parameters() if not p.requires_grad}  # before any train()
    assert ours.train() is ours and ours.eval() is ours
    ours.train()
    from swin_mm.checkpoint.layouts import MMDET

    flags = {n: torch.zeros_like(p) for n, p in stock.named_parameters() if not p.requires_grad}
    assert frozen == set(MMDET.to_own(flags).state)
    for i, layer in enumerate(ours.layers):
        assert layer.training == (i >= frozen_stages)
    assert ours.patch_embed.training == (frozen_stages < 0)


@pytest.mark.parametrize("stock_class", [MMDetSwin, MMSegSwin], ids=["mmdet", "mmseg"])
@pytest.mark.parametrize("blocks, rate", [(6, 0.1), (6, 0.2), (18, 0.2), (18, 0.3)])
def test_drop_path_rates_are_stock_to_the_bit(stock_class, blocks, rate):
    size = SMALL | dict(depths=(2, 2, blocks, 2), drop_path_rate=rate)
    stock = [m.drop_prob for m in stock_class(**size).modules() if isinstance(m, DropPath)]
    blocks = [block for stage in SwinTransformer(**size).layers for block in stage.blocks]
    ours = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert [rate for rate in ours for _ in range(2)] == stock  # of attention and of the MLP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(arch="huge"), "arch must be one of .* got 'huge'"),
        (dict(depths=(2, 2)), "depths and num_heads must name the same number of stages"),
        (dict(embed_dims=25), "embed_dims must be divisible by heads"),
        (dict(strides=(4, 2)), "strides must name all 4 stages"),
        (dict(patch_size=8), "strides.0. must equal patch_size, got 4 and"),
        (dict(out_indices=(4,)), r"out_indices must name stages in \[0, 4\), got \(4,\)"),
        (dict(out_indices=()), "out_indices must name stages"),
        (dict(frozen_stages=5), r"frozen_stages must be in \[-1, 4\], got 5"),
        (dict(window_size=0), "window_size must be a positive int or a pair"),
        (dict(window_size=(7, 7, 7)), "window_size must be a positive int or a pair"),
        (dict(attn_backend="fast"), "attn_backend must be one of"),
        (dict(pretrained="a.pth", init_cfg=dict(type="Xavier")), "not both"),
    ],
    ids=str,
)
def test_arguments_that_disagree_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinTransformer(**arguments)


def test_pretrained_is_the_older_spelling_of_init_cfg():
    with pytest.warns(DeprecationWarning, match="use init_cfg"):
        model = SwinTransformer(**SMALL, pretrained="a.pth")
    assert model.init_cfg == dict(type="Pretrained", checkpoint="a.pth")
    assert SwinTransformer(**SMALL, init_cfg=dict(checkpoint="a.pth")).init_cfg == model.init_cfg
    with pytest.raises(TypeError, match="pretrained must be a path or URL"):
        SwinTransformer(**SMALL, pretrained=True)
