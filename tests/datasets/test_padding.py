import pytest

from swin_mm.datasets.padding import padding_share


@pytest.mark.parametrize(
    ("batches", "divisor", "share"),
    [
        ([[(64, 64), (32, 64)]], 32, 1 / 4),
        ([[(64, 64)], [(32, 64)]], 32, 0),
        ([[(10, 20)]], 16, 1 - 200 / 512),
        ([[(10, 30), (30, 10)]], 1, 1 - 600 / 1800),
    ],
    ids=["two sizes", "each alone", "divisor", "upright and lying"],
)
def test_by_hand(batches, divisor, share):
    assert padding_share(batches, divisor) == pytest.approx(share)


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="there are no pixels"):
        padding_share([])


def test_divisor_below_one():
    with pytest.raises(ValueError, match="divisor must be 1 or more, got 0"):
        padding_share([[(1, 1)]], 0)
