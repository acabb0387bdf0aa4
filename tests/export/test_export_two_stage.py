"""Faster R-CNN, Mask R-CNN and cascades as files beside themselves in PyTorch."""

import numpy as np
import pytest
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image
from tiny_models import DATASET, build, two_stage

from swin_mm.export.check import draw_example, match
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import ExportedModel
from swin_mm.export.write import export_model

CLASSES = list("abc")
RESIZED = dict(
    DATASET,
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(300, 200), keep_ratio=True),
        dict(
            type="PackDetInputs",
            meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
        ),
    ],
)
MODELS = {
    "mask-v1": two_stage(),
    "faster-v2": two_stage("v2", masks=False),
    "cascade-context": two_stage("context", stages=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_detections_equal_the_models_at_three_sizes(name, tmp_path):
    model = build(MODELS[name])
    plan = make_plan(model, RESIZED, "model")
    differences = export_model(plan, tmp_path / "model.onnx", CLASSES).differences
    assert len({d.size[1:] for d in differences}) == 3
    for difference in differences:
        assert difference.compared >= 10 * difference.size[0]
        assert ("share of mask pixels" in difference.values) == (name != "faster-v2")
    if name == "mask-v1":
        _compare_on_a_file(model, tmp_path)


def _compare_on_a_file(model, folder):
    """From a file to boxes and masks in it, by the runtime and by mmdet's pipeline."""
    Image.fromarray(draw_example(120, 170, 3, seed=3)).save(folder / "image.png")
    data = Compose(RESIZED["pipeline"])({"img_path": str(folder / "image.png"), "img_id": 0})
    expected = model.test_step(pseudo_collate([data]))[0].pred_instances.numpy()
    found = ExportedModel(folder / "model.onnx").predict(folder / "image.png", score_thr=0.0)
    assert found.masks.shape == (len(expected.scores), 120, 170)
    assert found.names == [CLASSES[label] for label in found.labels]
    as_dicts = [
        {name: x[name] for name in ("boxes", "scores", "labels")}
        for x in (vars(found), dict(expected.items()) | {"boxes": expected.bboxes})
    ]
    pairs, missing = match(*as_dicts)
    assert not missing
    for ours, theirs in pairs:
        # Resizing rounds some pixels differently.
        np.testing.assert_allclose(found.boxes[ours], expected.bboxes[theirs], atol=0.3)
        assert (found.masks[ours] != expected.masks[theirs]).sum() <= 20


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
