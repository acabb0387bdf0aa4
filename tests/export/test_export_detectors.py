"""Detectors as files give what they give in PyTorch."""

import pytest
from tiny_models import DATASET, allowed_operators, build, dense, two_stage, used_operators

from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.write import export_model

# Name: model, and the one size that its file is for. Any size takes twice as long; of two stages it
# is tested with Mask R-CNN in `test_exported_predictions`, of cascades with HTC.
MODELS = {
    "retinanet": (dense("RetinaHead", depths=(2, 2)), None),
    "atss": (dense("ATSSHead"), (61, 90)),
    "cascade": (two_stage(stages=2), (61, 90)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_detections_equal_the_models(name, tmp_path):
    model, size = MODELS[name]
    plan = make_plan(build(model), DATASET, "model")
    options = {} if size is None else dict(size=size, batch=2)
    differences = export_model(plan, tmp_path / "model.onnx", list("abc"), **options).differences
    assert len({d.size[1:] for d in differences}) == (3 if size is None else 1)
    for difference in differences:
        assert difference.compared >= 10 * difference.size[0]
        assert ("share of mask pixels" in difference.values) == (name == "cascade")
    assert used_operators(tmp_path / "model.onnx") <= allowed_operators()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(nms=dict(type="soft_nms", iou_threshold=0.5)), "soft NMS"),
        (dict(max_per_img=-1), "max_per_img=-1"),
    ],
)
def test_what_has_no_fixed_size_is_refused(change, message):
    cfg = two_stage(masks=False)
    cfg["test_cfg"]["rcnn"].update(change)
    with pytest.raises(ExportError, match=message):
        make_plan(build(cfg), DATASET, "model")


def test_other_heads_are_refused():
    cfg = two_stage(masks=False)
    cfg["roi_head"]["type"] = "DoubleHeadRoIHead"
    cfg["roi_head"].update(reg_roi_scale_factor=1.3)
    with pytest.raises(ExportError, match="DoubleHeadRoIHead cannot be exported"):
        make_plan(build(cfg), DATASET, "model")
