import pytest

from swin_mm.datasets.check import DatasetSummary, SplitSummary
from swin_mm.datasets.check.summary import examples, merge


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (5, "0, 1, 2 and 2 more")]
)
def test_examples(count, text):
    assert examples(range(count)) == text


def test_long_examples_are_shortened():
    assert examples(["a" * 300]) == "a" * 300
    assert examples(["a" * 5000 + "b", "c"]) == "a" * 150 + "..." + "a" * 149 + "b, c"


def test_merge_adds_counts():
    first = SplitSummary(3, 1, 4, {"a": 3, "b": 1}, ["one"])
    second = SplitSummary(2, 0, 5, {"a": 0, "b": 5}, ["two"])
    assert merge([first, second]) == SplitSummary(5, 1, 9, {"a": 3, "b": 6}, ["one", "two"])


def test_merge_weighs_shares_by_images():
    first = SplitSummary(3, 0, None, {"a": 1.0, "b": 0.0})
    second = SplitSummary(1, 1, None, {"a": 0.2, "b": 0.8})
    whole = merge([first, second])
    assert (whole.images, whole.empty, whole.instances) == (4, 1, None)
    assert whole.per_class == pytest.approx({"a": 0.8, "b": 0.2})


def test_rows_show_the_first_dozen_classes():
    per_class = {f"class{index}": index for index in range(80)}
    split = SplitSummary(images=9, instances=3160, per_class=per_class)
    rows = DatasetSummary(tuple(per_class), {"train": split}).rows()
    assert rows[0] == ("classes", "80")
    assert rows[2][1].startswith("class0 0, class1 1") and rows[2][1].endswith(
        "class11 11, and 68 more"
    )
