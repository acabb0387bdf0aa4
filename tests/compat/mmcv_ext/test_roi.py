"""roi_align, roi_pool and deform_roi_pool against loops over pooled cells."""

import itertools
import math

import pytest
import torch
import torchvision
from half_precision import HALVES, assert_rounds_once
from mmcv.ops import deform_roi_pool, roi_align, roi_align_rotated, roi_pool
from torch.autograd import gradcheck

# Whole, partly outside, narrower than a cell, on the second image, in a corner.
ROIS = torch.tensor(
    [
        [0, 2.3, 1.1, 30.7, 25.2],
        [0, -9.0, -7.0, 12.0, 50.0],
        [1, 10.0, 10.0, 11.5, 10.8],
        [1, 0.0, 0.0, 39.0, 31.0],
        [0, 35.0, 28.0, 60.0, 40.0],
    ],
    dtype=torch.float64,
)


def features(dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(2, 3, 8, 10, dtype=dtype)


def read(plane, y, x):
    """Bilinear value with RoIAlign's border: constant for one cell, then 0."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    above = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    under = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return float(above * (1 - y + top) + under * (y - top))


def align_by_loops(maps, rois, pooled, scale, ratio, mode, aligned):
    output = torch.zeros(len(rois), maps.shape[1], *pooled, dtype=torch.float64)
    for r, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (c * scale - 0.5 * aligned for c in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        cell = height / pooled[0], width / pooled[1]
        down, across = (ratio or math.ceil(c) for c in cell)
        for c in range(maps.shape[1]):
            for i in range(pooled[0]):
                for j in range(pooled[1]):
                    samples = [
                        read(
                            maps[int(image), c],
                            y1 + (i + (a + 0.5) / down) * cell[0],
                            x1 + (j + (b + 0.5) / across) * cell[1],
                        )
                        for a in range(down)
                        for b in range(across)
                    ]
                    mean = sum(samples) / len(samples)
                    output[r, c, i, j] = max(samples) if mode == "max" else mean
    return output


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "legacy"])
@pytest.mark.parametrize("ratio", [0, 2], ids=["adaptive", "ratio2"])
def test_roi_align_values(mode, aligned, ratio):
    args = ((3, 2), 0.25, ratio, mode, aligned)
    expected = align_by_loops(features(), ROIS, *args)
    torch.testing.assert_close(roi_align(features(), ROIS, *args), expected)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "legacy"])
@pytest.mark.parametrize("ratio", [0, 2], ids=["adaptive", "ratio2"])
def test_roi_align_gradient(mode, aligned, ratio):
    maps = features().requires_grad_()
    assert gradcheck(
        lambda maps: roi_align(maps, ROIS, (3, 2), 0.25, ratio, mode, aligned), maps, fast_mode=True
    )


def test_roi_align_takes_channels_last_and_strided_gradients():
    maps = features().contiguous(memory_format=torch.channels_last).requires_grad_()
    output = roi_align(maps, ROIS, (3, 3), 0.25, 2, "avg", True)
    weights = torch.randn(len(ROIS), 3, 3, 3, dtype=torch.float64).transpose(2, 3)
    (grad,) = torch.autograd.grad((output * weights).sum(), maps)
    plain = features().requires_grad_()
    torchvision_output = torchvision.ops.roi_align(plain, ROIS, (3, 3), 0.25, 2, True)
    (expected,) = torch.autograd.grad((torchvision_output * weights).sum(), plain)
    torch.testing.assert_close(output, torchvision_output)
    torch.testing.assert_close(grad, expected)


@HALVES
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_in_half_precision(mode, dtype):
    def align(maps):
        return roi_align(maps, ROIS.to(dtype).to(maps.dtype), (3, 2), 0.25, 2, mode, True)

    # In mode max the places of the maxima are kept in the dtype of the input.
    assert_rounds_once(align, [features()], dtype, rtol=None if mode == "avg" else 0.05)


NO_ROIS = torch.zeros(0, 5, dtype=torch.float64)
OPERATORS = {
    "avg": lambda maps: roi_align(maps, NO_ROIS, (3, 2), 0.25, 0, "avg", True),
    "max": lambda maps: roi_align(maps, NO_ROIS, (3, 2), 0.25, 0, "max", True),
    "pool": lambda maps: roi_pool(maps, NO_ROIS, (3, 2), 0.25),
    "deform": lambda maps: deform_roi_pool(
        maps, NO_ROIS, torch.zeros(0, 2, 3, 2).double().requires_grad_(), (3, 2), 0.25, 0, 0.1
    ),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_no_regions(operator):
    maps = features().requires_grad_()
    output = operator(maps)
    assert output.shape == (0, 3, 3, 2)
    output.sum().backward()
    assert not maps.grad.any()


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_of_a_region_without_area_is_zero(mode):
    maps = features().requires_grad_()
    roi = torch.tensor([[0, 8.0, 8.0, 8.0, 20.0]], dtype=torch.float64)
    output = roi_align(maps, roi, (3, 2), 0.25, 0, mode, True)
    output.sum().backward()
    assert not output.any() and not maps.grad.any()


def pool_by_loops(maps, rois, pooled, scale):
    output = torch.zeros(len(rois), maps.shape[1], *pooled, dtype=torch.float64)
    height, width = maps.shape[2:]
    for r, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        for i in range(pooled[0]):
            for j in range(pooled[1]):
                cell_h, cell_w = (y2 - y1) / pooled[0], (x2 - x1) / pooled[1]
                top = min(max(math.floor(i * cell_h + y1), 0), height)
                left = min(max(math.floor(j * cell_w + x1), 0), width)
                bottom = min(max(math.ceil((i + 1) * cell_h + y1), 0), height)
                right = min(max(math.ceil((j + 1) * cell_w + x1), 0), width)
                if bottom > top and right > left:
                    cell = maps[int(image), :, top:bottom, left:right]
                    output[r, :, i, j] = cell.amax(dim=(1, 2))
    return output


# A region with no area, and one outside the map, besides.
POOL_ROIS = torch.cat((ROIS, torch.tensor([[0, 9.0, 9, 2, 3], [1, 90, 90, 99, 99]]).double()))


@pytest.mark.parametrize("pooled", [(1, 1), (3, 2), (7, 7)], ids=str)
def test_roi_pool_values(pooled):
    expected = pool_by_loops(features(), POOL_ROIS, pooled, 0.25)
    torch.testing.assert_close(roi_pool(features(), POOL_ROIS, pooled, 0.25), expected)


def test_roi_pool_values_when_the_regions_do_not_fit_at_once(monkeypatch):
    from swin_mm.compat.mmcv_ext import roi_pool as module

    monkeypatch.setattr(module, "GATHERED_VALUES", 100)
    expected = pool_by_loops(features(), POOL_ROIS, (3, 2), 0.25)
    torch.testing.assert_close(roi_pool(features(), POOL_ROIS, (3, 2), 0.25), expected)


def test_roi_pool_gradient():
    maps = features().requires_grad_()
    assert gradcheck(lambda maps: roi_pool(maps, POOL_ROIS, (3, 2), 0.25), maps, fast_mode=True)


@HALVES
def test_roi_pool_in_half_precision(dtype):
    def pool(maps):
        return roi_pool(maps, POOL_ROIS.to(dtype).to(maps.dtype), (3, 2), 0.25)

    assert_rounds_once(pool, [features()], dtype, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("ratio", [0, 2], ids=["adaptive", "ratio2"])
def test_deform_roi_pool_without_offset_is_roi_align(ratio):
    output = deform_roi_pool(features(), ROIS, None, (3, 2), 0.25, ratio, 0.1)
    expected = torchvision.ops.roi_align(features(), ROIS, (3, 2), 0.25, ratio or -1, True)
    torch.testing.assert_close(output, expected)


def test_deform_roi_pool_moves_cells_by_a_share_of_the_region():
    """A shift of all cells alike is a shift of the region."""
    rois = torch.tensor([[0, 4.0, 8.0, 24.0, 20.0]], dtype=torch.float64)
    offset = torch.zeros(1, 2, 3, 2, dtype=torch.float64)
    offset[:, 0], offset[:, 1] = 0.7, -0.4
    output = deform_roi_pool(features(), rois, offset, (3, 2), 0.25, 2, 0.1)
    x, y = 0.1 * 0.7 * 20, 0.1 * -0.4 * 12
    moved = rois + torch.tensor([0, x, y, x, y], dtype=torch.float64)
    expected = torchvision.ops.roi_align(features(), moved, (3, 2), 0.25, 2, True)
    torch.testing.assert_close(output, expected)


def test_deform_roi_pool_gradients():
    torch.manual_seed(2)
    maps = features().requires_grad_()
    offset = (torch.randn(2, 2, 3, 2, dtype=torch.float64) * 0.3).requires_grad_()
    rois = torch.tensor([[0, 4.1, 4.3, 30.2, 22.9], [1, 9.0, 7.0, 25.0, 19.0]]).double()
    assert gradcheck(
        lambda maps, offset: deform_roi_pool(maps, rois, offset, (3, 2), 0.25, 0, 0.1),
        (maps, offset),
        fast_mode=True,
    )


@HALVES
def test_deform_roi_pool_in_half_precision(dtype):
    def pool(maps, offset):
        return deform_roi_pool(maps, ROIS.to(dtype).to(maps.dtype), offset, (3, 2), 0.25, 2, 0.1)

    offset = torch.randn(len(ROIS), 2, 3, 2) * 0.3
    assert_rounds_once(pool, [features(), offset], dtype, rtol=torch.finfo(dtype).eps)


def turned_points(box, pooled, counts, aligned):
    """Sampling points of one region, by turning vectors in the plane; `(PH, PW, points)` pairs."""
    x, y, width, height, angle = box
    turn = complex(math.cos(angle), math.sin(angle))  # towards growing y: clockwise on the screen
    points = []
    for i, j in itertools.product(range(pooled[0]), range(pooled[1])):
        for a, b in itertools.product(range(counts[0]), range(counts[1])):
            down = ((i + (a + 0.5) / counts[0]) / pooled[0] - 0.5) * height
            across = ((j + (b + 0.5) / counts[1]) / pooled[1] - 0.5) * width
            place = complex(x, y) - 0.5 * aligned * complex(1, 1) + complex(across, down) * turn
            points.append((place.imag, place.real))
    return torch.tensor(points).view(*pooled, -1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("clockwise", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_rotated_reads_a_turned_grid(aligned, ratio, clockwise):
    rois = torch.tensor(
        [
            [0, 18.0, 14.0, 16.0, 9.0, 0.0],
            [1, 20.0, 12.0, 22.0, 8.0, 0.7],
            [1, 3.0, 4.0, 30.0, 20.0, -2.1],  # partly outside
            [0, 20.0, 16.0, 2.0, 1.0, 1.2],  # smaller than a cell
        ],
        dtype=torch.float64,
    )
    maps, pooled, scale = features(), (2, 3), 0.25
    wanted = torch.zeros(len(rois), 3, *pooled, dtype=torch.float64)
    for r, (image, *box) in enumerate(rois.tolist()):
        box = [side * scale for side in box[:4]] + [box[4] if clockwise else -box[4]]
        if not aligned:
            box[2:4] = (max(side, 1) for side in box[2:4])
        counts = [ratio or math.ceil(box[3 - axis] / pooled[axis]) for axis in (0, 1)]
        points = turned_points(box, pooled, counts, aligned)
        for c, i, j in itertools.product(range(3), range(2), range(3)):
            samples = [read(maps[int(image), c], y, x) for y, x in points[i, j].tolist()]
            wanted[r, c, i, j] = sum(samples) / len(samples)
    maps.requires_grad_()

    def pool(maps):
        return roi_align_rotated(maps, rois, pooled, scale, ratio, aligned, clockwise)

    torch.testing.assert_close(pool(maps).detach(), wanted, rtol=1e-5, atol=1e-6)
    assert gradcheck(pool, maps, fast_mode=True)
    half = roi_align_rotated(maps.half(), rois.half(), pooled, scale, ratio, aligned, clockwise)
    torch.testing.assert_close(half.double(), wanted, rtol=0.05, atol=0.05)


def test_roi_align_rotated_in_parts(monkeypatch):
    from swin_mm.compat.mmcv_ext import roi_align_rotated as module

    rois = torch.rand(9, 6, generator=torch.manual_seed(0), dtype=torch.float64) * 20
    rois[:, 0] = 0
    wanted = roi_align_rotated(features(), rois, 4, 0.25, 2)
    monkeypatch.setattr(module, "MAX_VALUES", 1)
    assert torch.equal(roi_align_rotated(features(), rois, 4, 0.25, 2), wanted)
    assert roi_align_rotated(features(), rois[:0], 4, 0.25, 2).shape == (0, 3, 4, 4)


def test_roi_align_rotated_refuses_negative_sides():
    with pytest.raises(ValueError, match="negative sides"):
        roi_align_rotated(features(), torch.tensor([[0, 5.0, 5, -3, 2, 0]]).double(), 2, 1.0, 2)
