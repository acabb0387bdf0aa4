"""Multi-scale deformable attention against mmcv's pure PyTorch version."""

import pytest
import torch
from half_precision import HALVES, assert_rounds_once
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torch.autograd import gradcheck

SHAPES = torch.tensor([[6, 5], [3, 4], [1, 1]])
STARTS = torch.tensor([0, 30, 42])


def tensors(dtype=torch.float64, batch=2, queries=7):
    """Value, locations (some outside the map) and weights, for 2 heads of 3 channels, 4 points."""
    torch.manual_seed(0)
    value = torch.randn(batch, 43, 2, 3, dtype=torch.float64)
    locations = torch.rand(batch, queries, 2, 3, 4, 2, dtype=torch.float64) * 1.4 - 0.2
    weights = torch.rand(batch, queries, 2, 3, 4, dtype=torch.float64)
    return [tensor.to(dtype) for tensor in (value, locations, weights)]


def attend(value, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, SHAPES, STARTS, locations, weights, 64)


def test_values_and_gradients():
    leaves = [t.requires_grad_() for t in tensors()]
    value, locations, weights = leaves
    output = attend(*leaves)
    expected = multi_scale_deformable_attn_pytorch(value, SHAPES, locations, weights)
    torch.testing.assert_close(output, expected)
    direction = torch.randn_like(output)
    for grad, wanted in zip(
        torch.autograd.grad(output, leaves, direction),
        torch.autograd.grad(expected, leaves, direction),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted)


def test_gradient_against_differences():
    assert gradcheck(attend, [t.requires_grad_() for t in tensors(queries=3)], fast_mode=True)


def test_strided_inputs():
    value, locations, weights = tensors()
    strided = value.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(
        attend(strided, locations, weights), attend(value, locations, weights)
    )


@HALVES
def test_half_precision(dtype):
    assert_rounds_once(attend, tensors(), dtype)


def test_autocast_changes_nothing():
    leaves = tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = attend(*leaves)
    assert torch.equal(output, attend(*leaves))


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 7)], ids=["no_queries", "no_images"])
def test_no_queries_give_nothing(batch, queries):
    leaves = [t.requires_grad_() for t in tensors(batch=batch, queries=queries)]
    output = attend(*leaves)
    assert output.shape == (batch, queries, 6)
    output.sum().backward()
    assert not leaves[0].grad.any()
