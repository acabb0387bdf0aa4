"""Coding of boxes against mmdet's coder."""

import pytest
import torch
from mmdet.models.task_modules import DeltaXYWHBBoxCoder

from swin_mm.heads.ops.deltas import decode_deltas, encode_deltas

MEANS, STDS = (0.1, -0.2, 0.05, 0.0), (0.1, 0.1, 0.2, 0.3)
SIZES = [(100, 140), (80, 60)]  # height and width


def draw_boxes(number, dtype=torch.float32):
    corners = torch.rand(number, 2) * 100
    return torch.cat((corners, corners + 1 + torch.rand(number, 2) * 50), dim=1).to(dtype)


def test_encoding_is_mmdets():
    boxes, targets = draw_boxes(50), draw_boxes(50)
    expected = DeltaXYWHBBoxCoder(MEANS, STDS).encode(boxes, targets)
    torch.testing.assert_close(encode_deltas(boxes, targets, MEANS, STDS), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("clips", [False, True])
def test_decoding_is_mmdets_image_by_image(clips, dtype):
    boxes, deltas = draw_boxes(60), (torch.randn(60, 4) * 10).to(dtype)
    image = torch.arange(60) % 2
    coder = DeltaXYWHBBoxCoder(MEANS, STDS)
    limits = torch.tensor([size[::-1] for size in SIZES])[image] if clips else None
    found = decode_deltas(boxes, deltas, MEANS, STDS, limits)
    for i, size in enumerate(SIZES):
        expected = coder.decode(boxes[image == i], deltas[image == i], size if clips else None)
        assert torch.equal(found[image == i], expected)
    assert (found[:, 2:].amax(0) > 150).any() != clips


def test_decoding_undoes_encoding():
    boxes, targets = draw_boxes(50, torch.float64), draw_boxes(50, torch.float64)
    deltas = encode_deltas(boxes, targets, MEANS, STDS)
    found = decode_deltas(boxes, deltas, MEANS, STDS)
    torch.testing.assert_close(found, targets, rtol=1e-5, atol=1e-4)


def test_gradients_are_mmdets():
    boxes, deltas = draw_boxes(20), torch.randn(20, 4, requires_grad=True)
    coder = DeltaXYWHBBoxCoder(MEANS, STDS)
    decoded = decode_deltas(boxes, deltas, MEANS, STDS), coder.decode(boxes, deltas)
    found, expected = (torch.autograd.grad(x.square().sum(), deltas)[0] for x in decoded)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_no_boxes():
    none = torch.zeros(0, 4)
    assert decode_deltas(none, none, MEANS, STDS, torch.zeros(0, 2)).shape == (0, 4)
    assert encode_deltas(none, none, MEANS, STDS).shape == (0, 4)
