"""RetinaNet and ATSS as files beside themselves in PyTorch."""

import pytest
from tiny_models import DATASET, build, dense

from swin_mm.export.plan import make_plan
from swin_mm.export.write import export_model


@pytest.mark.slow
@pytest.mark.parametrize("head", ["RetinaHead", "ATSSHead"])
def test_detections_equal_the_models_at_three_sizes(head, tmp_path):
    plan = make_plan(build(dense(head)), DATASET, "model")
    differences = export_model(plan, tmp_path / "model.onnx", list("abc")).differences
    assert len({d.size[1:] for d in differences}) == 3
    assert all(d.compared >= 10 * d.size[0] for d in differences)
