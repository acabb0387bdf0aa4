"""What is drawn, and in which colours, for data sets with and without a palette of their own."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from swin_mm.datasets.picture import choose_palette
from swin_mm.engine.hooks.prediction_sheet import PredictionSheetHook

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


@pytest.mark.parametrize(
    ("settings", "drawn"),
    [({}, [0.9, 0.5]), ({"min_score": 0.6}, [0.9]), ({"min_score": 0.0}, [0.9, 0.5, 0.49])],
    ids=["half by default", "higher", "all"],
)
def test_doubtful_detections_are_not_kept(tmp_path, settings, drawn):
    """Nor are their masks: hundreds of a large image fill the memory."""
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.zeros((8, 9, 3), dtype=np.uint8))
    scores = torch.tensor([0.9, 0.5, 0.49])
    boxes = torch.tensor([[0.0, 0, 4, 4]])
    sample = DetDataSample(metainfo={"img_path": str(path)})
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0]))
    sample.pred_instances = InstanceData(
        scores=scores,
        bboxes=boxes.expand(3, 4),
        labels=torch.zeros(3, dtype=torch.long),
        masks=torch.zeros(3, 8, 9, dtype=torch.bool),
    )
    hook = PredictionSheetHook(**settings)
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=[path]))
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, outputs=[sample])
    (row,) = hook.rows
    np.testing.assert_allclose(row.prediction.scores, drawn, rtol=1e-6)
    assert len(row.prediction.masks) == len(drawn)
    assert len(row.truth.labels) == 1
