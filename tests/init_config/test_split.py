"""Splits: always the same, every class in both parts where it can be."""

import pytest

from swin_mm.init_config.split import split_names

NAMES = [f"{index:03d}.png" for index in range(50)]


def test_a_fifth_in_the_given_order_whatever_the_order():
    train, val = split_names(NAMES)
    assert len(val) == 10 and sorted(train + val) == NAMES
    assert train == sorted(train) and val == sorted(val)
    again = split_names(NAMES[::-1])
    assert sorted(again[1]) == val


def test_classes_come_into_both_parts():
    labels = {name: {"common"} for name in NAMES}
    labels["007.png"] = labels["031.png"] = {"common", "rare"}
    labels["012.png"] = {"single"}
    train, val = split_names(NAMES, labels)
    assert len(val) == 10
    for names in (train, val):
        assert any("rare" in labels[name] for name in names)
    assert "012.png" in train  # trained on rather than measured


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_no_part_is_empty(share):
    train, val = split_names(NAMES[:3], {name: {1} for name in NAMES}, share)
    assert train and val


def test_one_image_cannot_be_split():
    with pytest.raises(ValueError, match="at least two images"):
        split_names(["a.png"])
