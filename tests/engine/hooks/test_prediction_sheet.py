"""The colours of the sheet, for data sets with and without a palette of their own."""

import pytest

from swin_mm.engine.hooks.prediction_sheet import choose_palette

THREE = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]


@pytest.mark.parametrize(
    ("classes", "palette", "expected"),
    [
        ("abc", THREE, THREE),
        ("a", THREE, THREE[:1]),  # the palette of the class of the data set, classes of the config
        ("abcd", THREE, None),
        ("ab", None, None),
        ("ab", "random", None),
        ("x" * 50, None, None),
    ],
    ids=["own", "longer", "shorter", "absent", "word", "many classes"],
)
def test_each_class_has_a_colour(classes, palette, expected):
    chosen = choose_palette({"classes": tuple(classes), "palette": palette})
    assert len(chosen) == len(classes)
    assert all(0 <= part <= 255 for colour in chosen for part in colour)
    if expected:
        assert chosen == expected
    else:
        assert len(set(chosen)) == min(len(classes), 20)
