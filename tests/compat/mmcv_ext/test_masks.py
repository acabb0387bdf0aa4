"""PSAMask and the masked convolution against loops and the plain convolution."""

import pytest
import torch
from half_precision import HALVES, assert_rounds_once
from mmcv.ops import MaskedConv2d, PSAMask, masked_conv2d
from torch.autograd import gradcheck

KINDS = pytest.mark.parametrize("kind", ["collect", "distribute"])
# Map sides: as PSANet has them, smaller than the feature map, one pixel, larger than needed.
SIDES = pytest.mark.parametrize("sides", [(7, 9), (3, 5), (1, 1), (9, 11)], ids=str)


def by_loops(maps, kind, sides):
    """Each pixel's map, centred on it, moved to the feature map's coordinates."""
    batch, _, height, width = maps.shape
    output = torch.zeros(batch, height * width, height, width, dtype=maps.dtype)
    for h in range(height):
        for w in range(width):
            for i in range(sides[0]):
                for j in range(sides[1]):
                    y, x = h + i - (sides[0] - 1) // 2, w + j - (sides[1] - 1) // 2
                    if 0 <= y < height and 0 <= x < width:
                        value = maps[:, i * sides[1] + j, h, w]
                        if kind == "collect":
                            output[:, y * width + x, h, w] = value
                        else:
                            output[:, h * width + w, y, x] = value
    return output


@KINDS
@SIDES
def test_psa_mask_values(kind, sides):
    torch.manual_seed(0)
    maps = torch.randn(2, sides[0] * sides[1], 4, 5)
    assert torch.equal(PSAMask(kind, sides)(maps), by_loops(maps, kind, sides))


@KINDS
@SIDES
def test_psa_mask_gradient(kind, sides):
    torch.manual_seed(0)
    maps = torch.randn(2, sides[0] * sides[1], 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(PSAMask(kind, sides), maps, fast_mode=True)


@HALVES
@KINDS
def test_psa_mask_in_half_precision(kind, dtype):
    assert_rounds_once(PSAMask(kind, (3, 5)), [torch.randn(2, 15, 4, 5)], dtype)


def test_psa_mask_of_an_empty_batch():
    assert PSAMask("collect", (3, 5))(torch.zeros(0, 15, 4, 5)).shape == (0, 20, 4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), 1), ((1, 1), 0), ((3, 5), (1, 2))])
def test_masked_conv_is_the_convolution_where_the_mask_is(kernel, padding, dtype):
    torch.manual_seed(0)
    features = torch.randn(1, 3, 6, 7, dtype=dtype)
    weight, bias = torch.randn(4, 3, *kernel, dtype=dtype), torch.randn(4, dtype=dtype)
    mask = torch.rand(1, 6, 7) > 0.6
    output = masked_conv2d(features, mask, weight, bias, padding)
    expected = torch.conv2d(features, weight, bias, padding=padding) * mask
    torch.testing.assert_close(output, expected)


@HALVES
def test_masked_conv_in_half_precision(dtype):
    torch.manual_seed(0)
    module = MaskedConv2d(3, 4, 3, padding=1).to(dtype)
    features, mask = torch.randn(1, 3, 6, 7).to(dtype), torch.rand(1, 6, 7) > 0.5
    with torch.no_grad():
        output = module(features, mask)
        expected = module(features) * mask
    assert output.dtype == dtype
    eps = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(output, expected, rtol=eps, atol=eps)


def test_masked_conv_with_an_empty_mask_is_zero():
    module = MaskedConv2d(3, 4, 3, padding=1)
    assert not module(torch.randn(1, 3, 6, 7), torch.zeros(1, 6, 7)).any()
