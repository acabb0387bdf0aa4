"""Where slices lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swin_mm.inference.sliced import make_slices


def test_slices_by_hand():
    """Steps of 8 - 2 rows and 10 - 5 columns; the last ones are moved inwards."""
    slices = make_slices(14, 17, (8, 10), (0.25, 0.5))
    columns = [(0, 10), (5, 15), (7, 17)]
    assert slices == [(x, y, end, y + 8) for y in (0, 6) for x, end in columns]


@pytest.mark.parametrize("size", [(20, 30), (100, 100)], ids=["as large", "larger"])
def test_a_slice_as_large_as_the_image(size):
    assert make_slices(20, 30, size, (0.2, 0.2)) == [(0, 0, 30, 20)]


@given(length=st.integers(1, 60), size=st.integers(1, 70), ratio=st.floats(0, 1, exclude_max=True))
def test_every_pixel_is_covered_and_neighbours_overlap(length, size, ratio):
    slices = make_slices(length, 5, (size, 5), (ratio, 0))
    rows = [(top, bottom) for _, top, _, bottom in slices]
    assert rows[0][0] == 0 and rows[-1][1] == length
    assert all(bottom - top == min(size, length) for top, bottom in rows)
    for (top, bottom), (next_top, _) in zip(rows, rows[1:], strict=False):
        assert top < next_top <= bottom
        assert bottom - next_top >= min(int(ratio * size), size - 1)


@pytest.mark.parametrize(
    ("size", "ratios", "message"),
    [
        ((0, 5), (0, 0), "slice_height must be at least 1 pixel, got 0"),
        ((5, -1), (0, 0), "slice_width must be at least 1 pixel, got -1"),
        ((5, 5), (1, 0), "overlap_height_ratio must be at least 0 and less than 1, got 1"),
        ((5, 5), (0, -0.1), "overlap_width_ratio must be at least 0 and less than 1, got -0.1"),
    ],
)
def test_slices_that_make_no_sense_are_refused(size, ratios, message):
    with pytest.raises(ValueError, match=message):
        make_slices(10, 10, size, ratios)
