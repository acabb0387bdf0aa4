"""Deformable convolutions against sampling with `grid_sample`, through mmcv's own functions."""

import pytest
import torch
from half_precision import HALVES, assert_rounds_once
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack, deform_conv2d
from mmcv.ops import modulated_deform_conv2d as modulated_conv2d
from torch.autograd import gradcheck
from torch.nn import functional as F

# stride, padding, dilation, groups, deform_groups
GEOMETRIES = {
    "plain": ((1, 1), (0, 0), (1, 1), 1, 1),
    "strided": ((2, 1), (1, 2), (1, 1), 1, 1),
    "dilated": ((1, 1), (2, 1), (2, 1), 1, 1),
    "groups": ((1, 1), (1, 1), (1, 1), 2, 1),
    "deform_groups": ((1, 2), (1, 1), (1, 1), 2, 4),
}
geometries = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)


def tensors(geometry, dtype=torch.float64, batch=2):
    """Input, offset, mask, weight, bias; the kernel is not square."""
    torch.manual_seed(0)
    stride, padding, dilation, groups, deform_groups = geometry
    kernel = (3, 2)
    out = [
        (size + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i, size in enumerate((7, 6))
    ]
    taps = kernel[0] * kernel[1] * deform_groups
    shapes = [
        (batch, 4, 7, 6),
        (batch, 2 * taps, *out),
        (batch, taps, *out),
        (6, 4 // groups, *kernel),
        (6,),
    ]
    made = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    made[2] = made[2].sigmoid()
    return [tensor.to(dtype) for tensor in made]


def sampled_conv(input, offset, mask, weight, bias, geometry):
    """Samples every kernel tap with `grid_sample`, then multiplies matrices."""
    stride, padding, dilation, groups, deform_groups = geometry
    batch, channels, height, width = input.shape
    kernel = weight.shape[2:]
    offset = offset.unflatten(1, (deform_groups, kernel[0] * kernel[1], 2))
    mask = mask.unflatten(1, (deform_groups, kernel[0] * kernel[1]))
    rows = torch.arange(mask.shape[3], dtype=input.dtype)[:, None] * stride[0] - padding[0]
    columns = torch.arange(mask.shape[4], dtype=input.dtype) * stride[1] - padding[1]
    part = input.unflatten(1, (deform_groups, -1)).flatten(0, 1)
    taps = []
    for tap in range(kernel[0] * kernel[1]):
        i, j = divmod(tap, kernel[1])
        y = rows + i * dilation[0] + offset[:, :, tap, 0]
        x = columns + j * dilation[1] + offset[:, :, tap, 1]
        grid = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), dim=-1)
        samples = F.grid_sample(part, grid.flatten(0, 1), align_corners=True)
        samples = samples.unflatten(0, (batch, deform_groups)) * mask[:, :, None, tap]
        taps.append(samples.flatten(1, 2))  # (B, C, H_out, W_out)
    grouped = torch.stack(taps, dim=2).unflatten(1, (groups, -1))  # (B, g, C/g, taps, H_out, W_out)
    kernels = weight.flatten(2).unflatten(0, (groups, -1))  # (g, C_out/g, C/g, taps)
    return torch.einsum("bgcthw,goct->bgohw", grouped, kernels).flatten(1, 2) + bias[:, None, None]


@geometries
def test_deform_conv_values(geometry):
    input, offset, mask, weight, bias = tensors(geometry)
    expected = sampled_conv(
        input, offset, torch.ones_like(mask), weight, torch.zeros_like(bias), geometry
    )
    torch.testing.assert_close(deform_conv2d(input, offset, weight, *geometry), expected)


@geometries
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "nobias"])
def test_modulated_deform_conv_values(geometry, with_bias):
    input, offset, mask, weight, bias = tensors(geometry)
    output = modulated_conv2d(input, offset, mask, weight, bias if with_bias else None, *geometry)
    expected = sampled_conv(input, offset, mask, weight, bias * with_bias, geometry)
    torch.testing.assert_close(output, expected)


@geometries
def test_deform_conv_gradients(geometry):
    input, offset, mask, weight, bias = tensors(geometry)
    leaves = [t.requires_grad_() for t in (input, offset, weight)]
    output = deform_conv2d(*leaves, *geometry)
    expected = sampled_conv(
        input, offset, torch.ones_like(mask), weight, torch.zeros_like(bias), geometry
    )
    direction = torch.randn_like(output)
    for grad, wanted in zip(
        torch.autograd.grad(output, leaves, direction),
        torch.autograd.grad(expected, leaves, direction),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted)


@geometries
def test_modulated_deform_conv_gradients(geometry):
    leaves = [t.requires_grad_() for t in tensors(geometry)]
    input, offset, mask, weight, bias = leaves
    output = modulated_conv2d(input, offset, mask, weight, bias, *geometry)
    direction = torch.randn_like(output)
    for grad, wanted in zip(
        torch.autograd.grad(output, leaves, direction),
        torch.autograd.grad(sampled_conv(*leaves, geometry), leaves, direction),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_offsets_of_a_larger_map_are_read_from_their_start(memory_format):
    """As the compiled operator does, and mmdet's DyHead needs it."""
    geometry = GEOMETRIES["deform_groups"]
    input, offset, mask, weight, bias = tensors(geometry)
    torch.manual_seed(1)
    larger = [
        torch.randn(2, t.shape[1], 9, 11, dtype=torch.float64)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for t in (offset, mask)
    ]
    read = [
        torch.stack([image.reshape(-1)[: t[0].numel()].view(t.shape[1:]) for image in made])
        for made, t in zip(larger, (offset, mask), strict=True)
    ]
    output = modulated_conv2d(input, *larger, weight, bias, *geometry)
    expected = sampled_conv(input, *read, weight, bias, geometry)
    torch.testing.assert_close(output, expected)
    direction = torch.randn_like(output)
    for grad, wanted in zip(
        torch.autograd.grad(output, larger, direction),
        torch.autograd.grad(expected, larger, direction),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted)


def test_offsets_of_a_smaller_map_are_refused():
    geometry = GEOMETRIES["plain"]
    input, offset, mask, weight, bias = tensors(geometry)
    with pytest.raises(ValueError, match=r"at least as large as the output, which is \(5, 5\)"):
        modulated_conv2d(input, offset[..., :-1], mask, weight, bias, *geometry)


@pytest.mark.parametrize("wanted", ["input", "offset", "weight"])
def test_deform_conv_gradient_of_one_input_alone(wanted):
    """mmcv then calls only one of the two backward operators."""
    geometry = GEOMETRIES["strided"]
    made = dict(zip(("input", "offset", "mask", "weight", "bias"), tensors(geometry), strict=True))
    made[wanted].requires_grad_()

    def convolve(_):
        return deform_conv2d(made["input"], made["offset"], made["weight"], *geometry)

    assert gradcheck(convolve, made[wanted], fast_mode=True)


def test_deform_conv_second_backward_pass_gives_the_gradient_of_its_own():
    geometry = GEOMETRIES["plain"]
    input, offset, _, weight, _ = tensors(geometry)
    leaves = [t.requires_grad_() for t in (input, weight)]
    output = deform_conv2d(input, offset, weight, *geometry)
    once = torch.autograd.grad(output, leaves, torch.ones_like(output), retain_graph=True)
    twice = torch.autograd.grad(output, leaves, 2 * torch.ones_like(output))
    for first, second in zip(once, twice, strict=True):
        torch.testing.assert_close(second, 2 * first)


@HALVES
def test_deform_conv_in_half_precision(dtype):
    geometry = GEOMETRIES["deform_groups"]
    input, offset, _, weight, _ = tensors(geometry)
    inputs = input, offset, weight
    eps = torch.finfo(dtype).eps
    assert_rounds_once(lambda *t: deform_conv2d(*t, *geometry), inputs, dtype, rtol=eps)


@HALVES
def test_modulated_deform_conv_in_half_precision(dtype):
    geometry = GEOMETRIES["deform_groups"]
    eps = torch.finfo(dtype).eps
    assert_rounds_once(
        lambda *t: modulated_conv2d(*t, *geometry), tensors(geometry), dtype, rtol=eps
    )


@pytest.mark.parametrize("pack", [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_modules_train_under_autocast(pack):
    torch.manual_seed(0)
    module = pack(4, 6, kernel_size=3, padding=1)
    input = torch.randn(2, 4, 9, 11)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(input)
    expected = module(input)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("modulated", [False, True], ids=["plain", "modulated"])
def test_the_gradient_of_an_offset_ends_one_cell_outside(modulated):
    """A sample at -1 reads nothing, and in mmcv its offset has no gradient either."""
    rows, columns = torch.arange(3.0), torch.arange(4.0)
    ramp = (10 * rows[:, None] + columns)[None, None]  # (1, 1, 3, 4)
    weight, offset = torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 5, 6, requires_grad=True)
    if modulated:
        mask = torch.ones(1, 1, 5, 6)
        out = modulated_conv2d(ramp, offset, mask, weight, None, 1, 1)
    else:
        out = deform_conv2d(ramp, offset, weight, 1, 1)
    out.sum().backward()
    wanted = torch.zeros(2, 5, 6)
    wanted[0, 1:4, 1:5] = 10  # y: the next row less this one
    wanted[0, 3, 1:5] = -ramp[0, 0, 2]  # behind the last row there is nothing
    wanted[1, 1:4, 1:5] = 1
    wanted[1, 1:4, 4] = -ramp[0, 0, :, 3]
    torch.testing.assert_close(offset.grad[0], wanted)
