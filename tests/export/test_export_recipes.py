"""Files of the other recipes give what their models give in PyTorch."""

import onnx
import pytest
import shrunk_recipes
from tiny_models import DATASET

import swin_mm
from swin_mm.export.check import draw_example
from swin_mm.export.plan import make_plan
from swin_mm.export.write import export_model

ANY_SIZE = ("sparse_rcnn", "htc")
ONE_SIZE = (
    "dino",
    "rtmdet",
    "k_net",
    "mask2former_objects",
    "mask2former_label_maps",
    "mask2former_panoptic",
    "maskformer",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY_SIZE + ONE_SIZE)
def test_predictions_equal_the_models(name, tmp_path):
    plan = make_plan(getattr(shrunk_recipes, name)(), DATASET, "model")
    assert plan.needs_size == (name in ONE_SIZE)
    size = dict(size=(96, 128), batch=1) if plan.needs_size else {}
    found = export_model(plan, tmp_path / "model.onnx", list("abcde"), **size).differences
    assert len({difference.size[1:] for difference in found}) == (1 if plan.needs_size else 3)
    least = 2 if plan.panoptic else 10  # segments, detections or pixels
    assert all(d.compared >= least and not d.errors for d in found)
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    assert {node.domain for node in nodes} == {""}  # ONNX's own operators
    found = swin_mm.load(tmp_path / "model.onnx").predict(draw_example(91, 133, 3, 0), score_thr=0)
    assert len(found) and (found.segments is not None) == bool(plan.panoptic)
