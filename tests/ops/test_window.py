"""Window functions against slow constructions, by hand and as mmdet and timm build them."""

import itertools
import weakref

import pytest
import torch
from mmdet.models.backbones.swin import WindowMSA
from timm.models.swin_transformer import get_relative_position_index

from swin_mm.ops.window import (
    MASK_VALUE,
    pad_bottom_right,
    padded_size,
    region_ids,
    relative_position_index,
    shift_mask,
    window_layout,
    window_partition,
    window_reverse,
)

WINDOWS = [(7, 7), (4, 6), (1, 5), (1, 1)]
SIZES = {
    "divisible": (14, 21),
    "not-in-height": (15, 21),
    "not-in-width": (14, 17),
    "in-neither": (19, 29),
    "below-window": (3, 5),
    "one-window": (7, 7),
    "one-row": (1, 30),
    "one-token": (1, 1),
}


def partition(x, fill, window, shift):
    return window_partition(x, fill, window_layout(x.shape[1:3], window, shift, x.device))


def reverse(windows, size, window, shift):
    return window_reverse(windows, window_layout(size, window, shift, windows.device))


def half(window):
    return window[0] // 2, window[1] // 2


def windows_by_hand(x, fill, window, shift):
    """Pads, rolls and cuts one step after the other, the windows in a Python loop."""
    height, width = x.shape[1:3]
    padded = fill.expand(len(x), *padded_size((height, width), window), -1).clone()
    padded[:, :height, :width] = x
    rolled = torch.roll(padded, (-shift[0], -shift[1]), dims=(1, 2))
    cut = []
    for image in rolled:
        for top in range(0, image.shape[0], window[0]):
            for left in range(0, image.shape[1], window[1]):
                patch = image[top : top + window[0], left : left + window[1]]
                cut.append(patch.reshape(window[0] * window[1], -1))
    return torch.stack(cut)


@pytest.mark.parametrize(
    ("size", "window", "expected"),
    [
        ((14, 21), (7, 7), (14, 21)),
        ((15, 21), (7, 7), (21, 21)),
        ((5, 25), (4, 6), (8, 30)),
        ((3, 2), (7, 7), (7, 7)),
        ((1, 512), (1, 64), (1, 512)),
    ],
)
def test_padded_size(size, window, expected):
    assert padded_size(size, window) == expected


def test_padding_adds_zeros_at_the_bottom_and_the_right():
    x = torch.randn(2, 3, 4, 5)
    padded = pad_bottom_right(x, (5, 6))
    assert torch.equal(padded[:, :3, :4], x)
    assert padded.sum() == pytest.approx(x.sum().item(), rel=1e-5)
    assert padded.shape == (2, 5, 6, 5)
    assert pad_bottom_right(x, (3, 4)) is x


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_windows_are_those_cut_by_hand_and_come_back_whole(size, window):
    for batch, shift in itertools.product((1, 3), ((0, 0), half(window))):
        x, fill = torch.randn(batch, *size, 3), torch.randn(3)
        windows = partition(x, fill, window, shift)
        assert torch.equal(windows, windows_by_hand(x, fill, window, shift))
        assert torch.equal(reverse(windows, size, window, shift), x)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_gradients_are_those_of_the_steps_done_by_hand(size):
    """Of the tokens, of the padding token, and of windows that are put back."""
    torch.manual_seed(0)
    x = torch.randn(2, *size, 3, dtype=torch.float64, requires_grad=True)
    fill = torch.randn(3, dtype=torch.float64, requires_grad=True)
    arguments = (x, fill, (7, 7), (3, 3))
    expected = windows_by_hand(*arguments)
    direction = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (x, fill), direction, allow_unused=True)
    found = torch.autograd.grad(partition(*arguments), (x, fill), direction)
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=0)
    torch.testing.assert_close(found[1], wanted[1])

    windows = expected.detach().requires_grad_()
    direction = torch.randn_like(x)
    (found,) = torch.autograd.grad(reverse(windows, size, (7, 7), (3, 3)), windows, direction)
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(found, windows_by_hand(direction, zero, (7, 7), (3, 3)))


def test_gradients_have_gradients():
    x = torch.randn(1, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    fill = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def there_and_back(x, fill):
        windows = partition(x, fill, (2, 3), (1, 1))
        return reverse(windows.square() + windows.mean(1, True), (3, 4), (2, 3), (1, 1))

    torch.autograd.gradcheck(there_and_back, (x, fill))
    torch.autograd.gradgradcheck(there_and_back, (x, fill))


def test_padding_without_a_token_is_zero():
    x = torch.ones(1, 3, 3, 2, dtype=torch.bfloat16)
    windows = partition(x, None, (2, 2), (0, 0))
    assert windows.dtype == torch.bfloat16
    assert torch.equal(windows[1], torch.tensor([[1, 1], [0, 0]] * 2, dtype=torch.bfloat16))


def test_the_padding_token_takes_the_dtype_of_the_map():
    fill = torch.randn(2, requires_grad=True)
    windows = partition(torch.ones(1, 3, 3, 2, dtype=torch.bfloat16), fill, (2, 2), (0, 0))
    assert windows.dtype == torch.bfloat16
    windows.sum().backward()
    assert fill.grad.dtype == torch.float32 and fill.grad.tolist() == [7, 7]


def test_strided_maps_are_read_as_they_are():
    x = torch.randn(2, 3, 9, 13).permute(0, 2, 3, 1)
    found = partition(x, torch.zeros(3), (4, 6), (2, 3))
    assert torch.equal(found, partition(x.contiguous(), torch.zeros(3), (4, 6), (2, 3)))


def regions_by_slices(size, window, shift):
    """Regions as the official code numbers them: slices painted one after the other."""
    image = torch.zeros(1, *size, 1)
    slices = [
        (slice(0, -w), slice(-w, -s), slice(-s, None)) if s else (slice(None),)
        for w, s in zip(window, shift, strict=True)
    ]
    for region, (rows, columns) in enumerate(itertools.product(*slices)):
        image[:, rows, columns] = region
    return windows_by_hand(image, torch.zeros(1), window, (0, 0)).squeeze(-1)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("windows", [(1, 1), (1, 3), (3, 2)], ids=str)
def test_shift_mask_separates_regions(window, windows):
    size = (window[0] * windows[0], window[1] * windows[1])
    regions = regions_by_slices(size, window, half(window))
    expected = (regions[:, None] != regions[:, :, None]) * MASK_VALUE
    mask = shift_mask(size, window, half(window))
    assert mask.dtype == torch.float32 and torch.equal(mask, expected)


@pytest.mark.parametrize("shift", [(3, 0), (0, 2), (6, 1)], ids=str)
def test_an_axis_without_a_shift_is_one_region(shift):
    regions = regions_by_slices((14, 21), (7, 7), shift)
    found = region_ids((14, 21), (7, 7), shift)
    assert torch.equal(found[:, None] != found[:, :, None], regions[:, None] != regions[:, :, None])


def test_without_a_shift_there_is_one_region():
    assert region_ids((14, 14), (7, 7), (0, 0)).unique().numel() == 1


@pytest.mark.parametrize("size", [(21, 28), (20, 31), (3, 40)], ids=str)
def test_a_layout_lists_its_padding(size):
    layout = window_layout(size, (7, 7), (3, 3))
    is_padding = layout.gather_index == size[0] * size[1]
    assert torch.equal(layout.padding, is_padding.nonzero().squeeze(1))


def test_a_layout_without_its_padding_gives_the_same():
    """As compiled code makes it."""
    torch.manual_seed(0)
    x, fill = torch.randn(2, 20, 31, 5).double(), torch.randn(5).double()
    layout = window_layout((20, 31), (7, 7), (3, 3))

    def run(layout):
        tensors = [t.clone().requires_grad_() for t in (x, fill)]
        windows = window_partition(*tensors, layout)
        return windows, *torch.autograd.grad(windows.cos().sum(), tensors)

    unlisted = layout._replace(padding=torch.arange(0))
    for found, expected in zip(run(unlisted), run(layout), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_without_gradients_windows_are_the_same(size):
    torch.manual_seed(0)
    x, fill = torch.randn(2, *size, 3), torch.randn(3)
    expected = partition(x, fill, (4, 6), (2, 3))
    with torch.no_grad():
        found = partition(x, fill, (4, 6), (2, 3))
        assert torch.equal(found, expected)
        assert torch.equal(reverse(found, size, (4, 6), (2, 3)), x)


def test_what_is_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        layout = window_layout((20, 31), (7, 7), (3, 3))
        mask = shift_mask((21, 35), (7, 7), (3, 3))
    assert not any(tensor.is_inference() for tensor in (*layout[:3], mask))


def test_layouts_and_masks_are_shared_by_size_and_few_are_kept():
    assert shift_mask((21, 35), (7, 7), (3, 3)) is shift_mask((21, 35), (7, 7), (3, 3))
    assert window_layout((20, 31), (7, 7), (3, 3)) is window_layout((20, 31), (7, 7), (3, 3))
    masks, orders = [], []
    for side in range(7, 700, 7):
        masks.append(weakref.ref(shift_mask((7, side), (7, 7), (3, 3))))
        orders.append(weakref.ref(window_layout((7, side), (7, 7), (3, 3)).gather_index))
    assert sum(mask() is not None for mask in masks) == 8
    assert sum(order() is not None for order in orders) == 32


@pytest.mark.parametrize("window", [(7, 7), (4, 6), (1, 5), (12, 12)], ids=str)
def test_relative_position_index_is_that_of_mmdet_and_timm(window):
    stock = WindowMSA(embed_dims=4, num_heads=1, window_size=window)
    assert torch.equal(relative_position_index(window), stock.relative_position_index)
    assert torch.equal(relative_position_index(window), get_relative_position_index(*window))


def test_relative_position_index_names_row_and_column_offsets():
    """A table that holds each row's own offsets gives them back, query minus key."""
    offsets = torch.stack(torch.meshgrid(torch.arange(-1, 2), torch.arange(-2, 3), indexing="ij"))
    table = offsets.flatten(1).T  # (15, 2)
    cells = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")).flatten(1)
    expected = (cells[:, :, None] - cells[:, None, :]).permute(1, 2, 0)
    assert torch.equal(table[relative_position_index((2, 3))], expected)
