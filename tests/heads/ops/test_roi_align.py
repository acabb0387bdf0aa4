"""RoIAlign against torchvision's operator."""

import pytest
import torch
import torchvision

from swin_mm.heads.ops.roi_align import roi_align

MAP = (2, 5, 19, 29)
ROIS = {
    "inside": [[0, 3.3, 8.1, 40.7, 60.2], [1, 20, 4, 101, 70]],
    "over every border": [[0, -30, -20, 160, 100], [1, -80, -80, -40, -40], [0, 90, 50, 400, 300]],
    "on the last pixel": [[1, 112, 72, 116, 76], [0, 115.9, 75.9, 116, 76]],
    "without area": [[0, 20, 20, 20, 20], [1, 30, 30, 20, 10]],
    "no boxes": [],
}


def make(rois: list, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    maps = torch.randn(MAP, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return maps.requires_grad_(), torch.tensor(rois, dtype=dtype).reshape(-1, 5)


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "not-aligned"])
@pytest.mark.parametrize("ratio", [0, 2], ids=["adaptive", "two-points"])
@pytest.mark.parametrize("rois", ROIS.values(), ids=ROIS)
def test_values_and_gradients_are_torchvisions(rois, ratio, aligned):
    maps, boxes = make(rois)
    out = roi_align(maps, boxes, (7, 5), 0.25, ratio, aligned)
    expected = torchvision.ops.roi_align(maps, boxes, (7, 5), 0.25, ratio, aligned)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)

    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(out, maps, grad)
    (wanted,) = torch.autograd.grad(expected, maps, grad)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_random_boxes_in_channels_last_memory():
    random = torch.Generator().manual_seed(2)
    corners = torch.rand(64, 2, 2, generator=random) * 140 - 12
    image = torch.randint(2, (64, 1), generator=random)
    boxes = torch.cat((image, corners.amin(1), corners.amax(1)), dim=1)
    maps, _ = make([])
    last = maps.contiguous(memory_format=torch.channels_last)
    out = roi_align(last, boxes, (3, 4), 0.25)
    expected = torchvision.ops.roi_align(maps, boxes, (3, 4), 0.25, 0, True)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad(out.square().sum(), maps)
    (wanted,) = torch.autograd.grad(expected.square().sum(), maps)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_narrow_maps_are_summed_in_float32(dtype):
    random = torch.Generator().manual_seed(3)
    maps, boxes = make(ROIS["inside"] + ROIS["over every border"])
    narrow = maps.detach().to(dtype).requires_grad_()
    wide = narrow.detach().double().requires_grad_()
    out = roi_align(narrow, boxes, (7, 5), 0.25)
    expected = torchvision.ops.roi_align(wide, boxes.double(), (7, 5), 0.25, 0, True)
    torch.testing.assert_close(out, expected.to(dtype))  # to one rounding
    grad = torch.randn(expected.shape, generator=random).to(dtype)
    (found,) = torch.autograd.grad(out, narrow, grad)
    (wanted,) = torch.autograd.grad(expected, wide, grad.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted.to(dtype))


def test_a_map_of_one_pixel():
    maps = torch.tensor([[[[3.0]]]])
    boxes = torch.tensor([[0, 0.0, 0.0, 4.0, 4.0]])
    expected = torchvision.ops.roi_align(maps, boxes, (2, 2), 0.25, 0, True)
    torch.testing.assert_close(roi_align(maps, boxes, (2, 2), 0.25), expected)


def test_float64_is_left_to_torchvision():
    maps, boxes = make(ROIS["inside"], torch.float64)
    expected = torchvision.ops.roi_align(maps, boxes, (2, 2), 0.25, 0, True)
    found = roi_align(maps, boxes, (2, 2), 0.25)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert found.grad_fn.name() == expected.grad_fn.name()
    ours = roi_align(maps.float(), boxes.float(), (2, 2), 0.25)
    assert ours.grad_fn.name() != expected.grad_fn.name()
