"""The masked convolution against the plain one."""

import pytest
import torch
from mmcv.ops import MaskedConv2d, masked_conv2d

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


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
