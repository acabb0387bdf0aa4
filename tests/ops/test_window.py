"""Window functions against slow constructions by hand and against mmdet's and timm's."""

import itertools

import pytest
import torch
from mmdet.models.backbones.swin import WindowMSA

from swin_mm.ops.window import (
    MASK_VALUE,
    pad_bottom_right,
    pad_with,
    padded_size,
    region_ids,
    relative_position_index,
    shift_mask,
    window_partition,
    window_reverse,
)

WINDOWS = [(7, 7), (4, 6), (1, 5)]


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        ((14, 21), (7, 7), (14, 21)),
        ((15, 21), (7, 7), (21, 21)),
        ((5, 25), (4, 6), (8, 30)),
        ((3, 2), (7, 7), (7, 7)),
    ],
)
def test_padded_size(size, window, expected):
    assert padded_size(size, window) == expected


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_partition_and_reverse_are_inverse(window, batch):
    x = torch.randn(batch, 2 * window[0], 3 * window[1], 5)
    windows = window_partition(x, window)
    assert windows.shape == (batch * 6, window[0] * window[1], 5)
    first_of_second_window = x[0, : window[0], window[1] : 2 * window[1]].flatten(0, 1)
    assert torch.equal(windows[1], first_of_second_window)
    assert torch.equal(window_reverse(windows, window, x.shape[1:3]), x)


def test_partition_refuses_what_does_not_divide():
    with pytest.raises(ValueError, match=r"divisible by window_size=\(7, 7\), got 8 x 14"):
        window_partition(torch.zeros(1, 8, 14, 3), (7, 7))


def test_padding_fills_with_the_token_and_gives_it_gradients():
    x = torch.randn(2, 3, 4, 5, requires_grad=True)
    token = torch.randn(5, requires_grad=True)
    padded = pad_with(x, (5, 6), token)
    assert torch.equal(padded[:, :3, :4], x)
    assert torch.equal(padded[:, 3:], token.expand(2, 2, 6, 5))
    assert torch.equal(padded[:, :, 4:], token.expand(2, 5, 2, 5))
    padded.sum().backward()
    assert torch.equal(token.grad, torch.full((5,), 2.0 * (5 * 6 - 3 * 4)))
    assert torch.equal(x.grad, torch.ones_like(x))


def test_nothing_is_copied_where_nothing_is_padded():
    x = torch.randn(1, 7, 7, 3)
    assert pad_bottom_right(x, (7, 7)) is x
    assert pad_with(x, (7, 7), torch.ones(3)) is x


def regions_by_slices(size, window, shift):
    """Regions as the official code numbers them: slices painted one after the other."""
    image = torch.zeros(size)
    slices = [
        (slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),)
        for w, s in zip(window, shift, strict=True)
    ]
    for region, (rows, columns) in enumerate(itertools.product(*slices)):
        image[rows, columns] = region
    return window_partition(image[None, :, :, None], window).squeeze(-1)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("windows", [(1, 1), (1, 3), (3, 2)], ids=str)
def test_shift_mask_separates_regions(window, windows):
    size = (window[0] * windows[0], window[1] * windows[1])
    shift = (window[0] // 2, window[1] // 2)
    regions = regions_by_slices(size, window, shift)
    expected = (regions[:, None] != regions[:, :, None]) * MASK_VALUE
    assert torch.equal(shift_mask(size, window, shift), expected)


def test_without_a_shift_there_is_one_region():
    assert region_ids((14, 14), (7, 7), (0, 0)).unique().numel() == 1


def test_masks_of_inference_serve_training():
    with torch.inference_mode():
        mask = shift_mask((21, 35), (7, 7), (3, 3))
    assert not mask.is_inference()


@pytest.mark.parametrize("window", [(7, 7), (4, 6)], ids=str)
def test_relative_position_index_is_that_of_mmdet(window):
    stock = WindowMSA(embed_dims=4, num_heads=1, window_size=window)
    assert torch.equal(relative_position_index(window), stock.relative_position_index)
