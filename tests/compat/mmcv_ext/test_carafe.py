"""CARAFE against loops over output pixels and against unfolding."""

import pytest
import torch
from half_precision import HALVES, assert_rounds_once
from mmcv.ops import carafe, carafe_naive
from mmcv.ops.carafe import CARAFEPack, ext_module
from torch.autograd import gradcheck
from torch.nn import functional as F

# kernel_size, group_size, scale_factor
SETTINGS = pytest.mark.parametrize("setting", [(3, 1, 2), (5, 2, 2), (1, 1, 3), (3, 4, 1)], ids=str)


def tensors(setting, dtype=torch.float64, batch=2):
    kernel, groups, scale = setting
    torch.manual_seed(0)
    features = torch.randn(batch, 4, 5, 6, dtype=torch.float64)
    masks = torch.rand(batch, groups * kernel**2, 5 * scale, 6 * scale, dtype=torch.float64)
    return features.to(dtype), masks.to(dtype)


def by_loops(features, masks, kernel, groups, scale):
    batch, channels, height, width = features.shape
    output = torch.zeros(batch, channels, height * scale, width * scale, dtype=features.dtype)
    reach = kernel // 2
    for y in range(height * scale):
        for x in range(width * scale):
            for c in range(channels):
                group = c // (channels // groups)
                for i in range(kernel):
                    for j in range(kernel):
                        row, column = y // scale + i - reach, x // scale + j - reach
                        if 0 <= row < height and 0 <= column < width:
                            weight = masks[:, (group * kernel + i) * kernel + j, y, x]
                            output[:, c, y, x] += features[:, c, row, column] * weight
    return output


@SETTINGS
@pytest.mark.parametrize("operator", [carafe, carafe_naive], ids=["carafe", "naive"])
def test_values(operator, setting):
    features, masks = tensors(setting)
    torch.testing.assert_close(
        operator(features, masks, *setting), by_loops(features, masks, *setting)
    )


@SETTINGS
def test_gradients(setting):
    leaves = [t.requires_grad_() for t in tensors(setting)]
    assert gradcheck(lambda f, m: carafe(f, m, *setting), leaves, fast_mode=True)


def test_naive_gradients_are_those_of_carafe():
    """mmcv's naive function itself refuses to run backward on the CPU."""
    setting = (5, 2, 2)
    features, masks = (t.requires_grad_() for t in tensors(setting))
    output = carafe(features, masks, *setting)
    direction = torch.randn_like(output)
    expected = torch.autograd.grad(output, (features, masks), direction)
    grads = torch.zeros_like(features), torch.zeros_like(masks)
    kernel, groups, scale = setting
    ext_module.carafe_naive_backward(
        direction,
        features.detach(),
        masks.detach(),
        *grads,
        kernel_size=kernel,
        group_size=groups,
        scale_factor=scale,
    )
    for grad, wanted in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, wanted)


@HALVES
def test_half_precision(dtype):
    setting = (5, 2, 2)
    assert_rounds_once(lambda *t: carafe(*t, *setting), tensors(setting), dtype)


def test_channels_last_input():
    setting = (3, 1, 2)
    features, masks = tensors(setting)
    output = carafe(features.contiguous(memory_format=torch.channels_last), masks, *setting)
    torch.testing.assert_close(output, carafe(features, masks, *setting))


def test_empty_batch():
    setting = (3, 1, 2)
    leaves = [t.requires_grad_() for t in tensors(setting, batch=0)]
    output = carafe(*leaves, *setting)
    assert output.shape == (0, 4, 10, 12)
    output.sum().backward()


def test_pack_is_a_weighted_mean_of_neighbours():
    """With uniform kernels CARAFE averages: each pixel's mean is spread over its block."""
    pack = CARAFEPack(4, 2, up_kernel=3)
    torch.nn.init.zeros_(pack.content_encoder.weight)
    torch.nn.init.zeros_(pack.content_encoder.bias)
    features = torch.randn(1, 4, 5, 6)
    mean = F.avg_pool2d(features, 3, stride=1, padding=1)
    torch.testing.assert_close(pack(features), F.interpolate(mean, scale_factor=2))
