"""Each operator as ONNX beside its definition in PyTorch, at sizes it was not recorded with."""

import onnxruntime
import pytest
import torch
from torch import nn
from torch.export import Dim

from swin_mm.export import operators
from swin_mm.export.onnx_operators import TRANSLATIONS
from swin_mm.export.prepare import AveragePool, prepare
from swin_mm.models import SwinTransformer

ANY = Dim.DYNAMIC
# Divisible by the window or not, one window, less than one, a row.
MAPS = [(1, 8, 12), (3, 9, 13), (1, 4, 4), (2, 3, 2), (1, 1, 7)]
C, HEADS = 8, 2


class Call(nn.Module):
    """An operator with its last arguments fixed."""

    def __init__(self, operator, *settings):
        super().__init__()
        self.operator, self.settings = operator, settings

    def forward(self, *tensors):
        return self.operator(*tensors, *self.settings)


def translate(module, tensors, dynamic_shapes):
    """A function that runs the module's ONNX."""
    recorded = torch.export.export(module, tensors, dynamic_shapes=dynamic_shapes, strict=False)
    program = torch.onnx.export(
        recorded,
        opset_version=18,
        dynamo=True,
        optimize=False,
        verbose=False,
        custom_translation_table=TRANSLATIONS,
    )
    model = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs):
        (out,) = session.run(None, dict(zip(names, (t.numpy() for t in inputs), strict=True)))
        return torch.from_numpy(out)

    return run


@pytest.mark.parametrize("shift", [(0, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_window_attention(shift, has_bias):
    torch.manual_seed(0)
    module = Call(operators.window_attention, HEADS, [4, 3], list(shift), 0.4)
    bias, pad = torch.randn(HEADS, 12, 12), torch.randn(3 * C) if has_bias else None
    qkv = torch.randn(2, 8, 6, 3 * C)
    dims = (({0: ANY, 1: ANY, 2: ANY}, None, None),)
    run = translate(module, (qkv, bias, pad), dims)
    given = (bias, pad) if has_bias else (bias,)
    for batch, height, width in MAPS:
        qkv = torch.randn(batch, height, width, 3 * C)
        torch.testing.assert_close(run(qkv, *given), module(qkv, bias, pad), rtol=1e-4, atol=1e-5)


def test_window_context():
    torch.manual_seed(0)
    module = Call(operators.window_context, HEADS, [4, 3], [2, 1], [1, 2, 3, 0])
    mix, pad = torch.randn(HEADS, C // HEADS, 4 * C // HEADS), torch.randn(3 * C)
    dims = (({0: ANY, 1: ANY, 2: ANY}, None, None),)
    run = translate(module, (torch.randn(2, 8, 6, 3 * C), mix, pad), dims)
    for batch, height, width in MAPS:
        qkv = torch.randn(batch, height, width, 3 * C)
        torch.testing.assert_close(run(qkv, mix, pad), module(qkv, mix, pad), rtol=1e-4, atol=1e-5)


def test_suppression_keeps_what_torchvision_keeps():
    torch.manual_seed(0)
    module = Call(operators.suppress, 0.5, 0.1, 7)

    def draw(groups, classes, num):
        corner, sides = torch.rand(2, groups, num, 2)
        return torch.cat([corner, corner + sides], 2), torch.rand(groups, classes, num)

    dims = (({0: ANY, 1: ANY}, {0: ANY, 1: ANY, 2: ANY}),)
    run = translate(module, draw(2, 3, 40), dims)
    for shape in [(1, 1, 50), (3, 2, 30), (2, 5, 2)]:
        boxes, scores = draw(*shape)
        expected = module(boxes, scores)
        assert torch.equal(run(boxes, scores), expected)
        assert 0 < (expected > 0).sum() < expected.numel()
    boxes, scores = draw(1, 2, 9)
    assert not run(boxes, torch.zeros_like(scores)).any()


@pytest.mark.parametrize("aligned", [True, False])
def test_boxes_are_pooled_from_their_levels(aligned):
    torch.manual_seed(0)
    module = Call(operators.pool_rois, [0.25, 0.125], [3, 2], 0, aligned)

    class Pool(nn.Module):
        def forward(self, fine, coarse, boxes, levels):
            return module([fine, coarse], boxes, levels)

    def draw(batch, height, width):
        maps = torch.randn(batch, 4, height, width), torch.randn(batch, 4, height // 2, width // 2)
        corner, sides = torch.rand(2, batch, 5, 2) * 2.0 * torch.tensor([width, height])
        return *maps, torch.cat([corner, corner + sides], 2), torch.randint(0, 2, (batch, 5))

    maps = {0: ANY, 2: ANY, 3: ANY}
    run = translate(Pool(), draw(2, 20, 16), (maps, maps, {0: ANY}, {0: ANY}))
    for batch, height, width in [(1, 22, 31), (3, 9, 12)]:
        inputs = draw(batch, height, width)
        torch.testing.assert_close(run(*inputs), Pool()(*inputs), rtol=1e-4, atol=1e-5)
    *inputs, levels = draw(2, 20, 16)
    for alone in (torch.zeros_like(levels), torch.ones_like(levels)):
        torch.testing.assert_close(
            run(*inputs, alone), Pool()(*inputs, alone), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("align_corners", [True, False])
def test_maps_are_resized_to_a_size_that_is_an_input(align_corners):
    torch.manual_seed(0)
    module = Call(operators.resize_to, align_corners)
    maps = {0: ANY, 2: ANY, 3: ANY}
    run = translate(module, (torch.randn(2, 3, 8, 9), torch.tensor([5, 4])), ((maps, None),))
    for shape, size in [((1, 3, 7, 12), (7, 12)), ((3, 3, 5, 6), (11, 4)), ((1, 3, 20, 9), (5, 9))]:
        x, size = torch.randn(shape), torch.tensor(size)
        torch.testing.assert_close(run(x, size), module(x, size), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 11), (3, 20), (1, 1), (2, 5)], ids=str)
@pytest.mark.parametrize("out", [1, 3, (2, 6)], ids=str)
def test_averages_equal_adaptive_pooling(size, out):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AveragePool(out)(x), nn.AdaptiveAvgPool2d(out)(x))


def test_low_rank_updates_are_merged():
    torch.manual_seed(0)
    sizes = dict(embed_dims=8, depths=(2,), num_heads=(2,), strides=(4,), out_indices=(0,))
    backbone = SwinTransformer(window_size=4, lora=dict(r=2), **sizes).eval()
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.5)
    image = torch.randn(1, 3, 37, 50)
    with torch.no_grad():
        (expected,) = backbone(image)
        prepare(backbone)
        (found,) = backbone(image)
    assert not [name for name, _ in backbone.named_parameters() if "lora_" in name]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
