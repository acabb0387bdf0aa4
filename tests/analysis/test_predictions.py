"""Reading kept predictions: what is read, and that nothing is run."""

import pickle

import numpy as np
import pytest
import torch

from swin_mm.analysis.predictions import PredictionError, by_image, load_predictions, to_numpy


@pytest.fixture
def keep(tmp_path):
    def write(content, protocol=None):
        path = tmp_path / "found.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_what_tests_write(keep, protocol):
    entry = dict(
        img_id=3,
        img_path="a.png",
        ori_shape=(20, 30),
        pred_instances=dict(
            bboxes=torch.rand(2, 4),
            labels=torch.tensor([1, 2]),
            scores=torch.tensor([0.5, 0.25], dtype=torch.float16),
            kept=torch.tensor([True, False]),
            masks=[dict(size=[20, 30], counts=b"x")],
        ),
        labels=np.arange(6, dtype=np.int16).reshape(2, 3),
        scale=np.float64(0.5),
    )
    (read,) = load_predictions(keep([entry], protocol))
    found, expected = read["pred_instances"], entry["pred_instances"]
    for name in ("bboxes", "labels", "scores", "kept"):
        assert torch.equal(found[name], expected[name])
    assert found["masks"] == expected["masks"]
    assert np.array_equal(read["labels"], entry["labels"]) and read["scale"] == 0.5
    assert to_numpy(found["scores"]).dtype == np.float32


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def test_code_is_not_run(keep, capsys):
    with pytest.raises(PredictionError, match="found.pkl: it asks for print, "):
        load_predictions(keep([dict(a=Evil())]))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "must hold a list"), ([1], "must hold a list"), ([], "has no predictions")],
    ids=["dict", "numbers", "empty"],
)
def test_a_pickle_of_something_else_is_refused(keep, content, message):
    with pytest.raises(PredictionError, match=message):
        load_predictions(keep(content))


def test_a_file_that_is_no_pickle_is_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_text("text")
    with pytest.raises(PredictionError, match="is no file of predictions"):
        load_predictions(path)
    with pytest.raises(FileNotFoundError):
        load_predictions(tmp_path / "b.pkl")


def test_order_is_that_of_the_data():
    entries = [dict(name="b"), dict(name="a")]
    assert by_image(entries, lambda e: e["name"], ["a", "b"]) == entries[::-1]
    with pytest.raises(PredictionError, match="1 images lack predictions and 1 .* such as c"):
        by_image(entries, lambda e: e["name"], ["a", "c"])
