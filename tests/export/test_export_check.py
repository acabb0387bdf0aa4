"""Which differences between a file and its model count as rounding."""

import numpy as np
import pytest

from swin_mm.export.check import Difference, _compare_detections, _compare_label_maps
from swin_mm.export.plan import Plan

PLAN = Plan(module=None, task="detection", bands=3, padding=[0, 0, 0], resize=None)


def detections(scores, places=5):
    """Boxes far from one another; empty places have a score of 0, as in a file's output."""
    count = places - len(scores)
    corner = 100.0 * np.arange(places, dtype=np.float32)
    boxes = np.stack([corner, corner, corner + 50, corner + 50], axis=1)
    scores = np.array([*scores, *[0.0] * count], dtype=np.float32)
    return {"boxes": boxes, "scores": scores, "labels": np.zeros(places, dtype=np.int64)}


def keep(found, index):
    return {name: values[index] for name, values in found.items()}


@pytest.mark.parametrize(
    ("in_file", "of_model", "places", "errors"),
    [
        ([0, 1, 2], [0, 1, 2], 5, 0),
        ([0, 1], [0, 1, 2], 5, 0),  # one at the threshold of scores
        ([0], [0, 1, 2], 5, 1),  # two of nearly equal scores, where there was room
        ([1, 2], [0, 1, 2], 5, 1),  # the best one
        ([0, 1, 3], [0, 1, 2], 3, 0),  # a full list ends among equal scores
        ([0, 1, 2, 3], [], 5, 1),  # what the model has not
    ],
    ids=["equal", "threshold", "two lost", "best lost", "full", "invented"],
)
def test_lost_and_invented_detections(in_file, of_model, places, errors):
    everything = detections([0.9, 0.5001, 0.5, 0.5], places=4)
    empty = detections([], places=places - len(in_file))
    found = {
        name: np.concatenate([values[in_file], empty[name]]) for name, values in everything.items()
    }
    difference = Difference((1, 600, 600), 0, {}, [])
    _compare_detections(PLAN, found, keep(everything, of_model), difference)
    assert len(difference.errors) == errors


@pytest.mark.parametrize(("gap", "errors"), [(1e-5, 0), (0.5, 1)], ids=["tie", "another class"])
def test_one_label_of_ten_thousand(gap, errors):
    """A share of pixels that rounding explains counts as wrong where the model is sure of them."""
    logits = np.zeros((3, 100, 100), dtype=np.float32)
    logits[1] = 1.0
    logits[0, 40, 50] = 1.0 - gap
    labels = logits.argmax(0)
    in_file = labels.copy()
    in_file[40, 50] = 0
    difference = Difference((1, 100, 100), 0, {}, [])
    _compare_label_maps(in_file, {"label_map": labels, "logits": logits}, difference)
    assert len(difference.errors) == errors
    assert difference.values["share of pixels"] == 1e-4
    assert difference.values["gap to the largest logit there"] == pytest.approx(gap, rel=0.01)
