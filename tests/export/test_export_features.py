"""Feature maps alone as files, in both formats and through the command."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny_models import DATASET, build, dense

from swin_mm.cli import export as command
from swin_mm.export.check import run_eager
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import ExportedModel
from swin_mm.export.write import export_model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["v2", "context"])  # V1's are tested with their detectors
def test_pyramids_equal_the_models_at_three_sizes(kind, tmp_path):
    plan = make_plan(build(dense("RetinaHead", kind, (2, 2))), DATASET, "neck")
    differences = export_model(plan, tmp_path / "neck.onnx").differences
    assert len({d.size[1:] for d in differences}) == 3
    assert all(d.compared == 3 * d.size[0] for d in differences)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file_format", "name", "part"), [("onnx", "a.onnx", "backbone"), ("openvino", "a.xml", "neck")]
)
def test_command_writes_a_file_of_one_size(file_format, name, part, tmp_path, capsys):
    model_cfg = dense("RetinaHead")
    model = build(model_cfg)
    loader = dict(dataset=dict(DATASET, pipeline=[dict(type="LoadImageFromFile")]))
    cfg = dict(default_scope="mmdet", model=model_cfg, test_dataloader=loader)
    Config(cfg).dump(tmp_path / "tiny.py")
    meta = dict(dataset_meta=dict(classes=("a", "b", "c")))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / "tiny.pth")

    options = ["--format", file_format, "--part", part, "--size", "61x90", "--batch", "1"]
    paths = [str(tmp_path / name) for name in ("tiny.py", "tiny.pth")]
    command.main([*paths, "--out", str(tmp_path / name), *options])
    text = capsys.readouterr().out
    assert "input: 1 images, 61x90" in text
    assert "beside PyTorch, 1 x 61x90" in text

    exported = ExportedModel(tmp_path / name)
    assert exported.metadata["classes"] == ["a", "b", "c"]
    assert json.loads(json.dumps(exported.metadata)) == exported.metadata
    plan = make_plan(model, DATASET, part)
    image = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)
    (expected,) = run_eager(model, plan, image[None])
    found = exported.predict(image)
    for level, values in zip(found.features, expected.values(), strict=True):
        np.testing.assert_allclose(level, values, rtol=1e-3, atol=1e-3 * np.abs(values).max())
    with pytest.raises(ValueError, match=r"the file is for images of \[61, 90\]"):
        exported.run(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    """A model that changes after it was recorded stands for a wrong file."""
    plan = make_plan(build(dense("RetinaHead")), DATASET, "backbone")

    def change(exported, model, *others):
        model.backbone.norm1.bias.data += 1
        return check(exported, model, *others)

    from swin_mm.export import write

    check = write.check_file
    monkeypatch.setattr(write, "check_file", change)
    with pytest.raises(ExportError, match="differs from the model .* It was not kept"):
        export_model(plan, tmp_path / "a.onnx", size=(64, 64), batch=1)
    assert not list(tmp_path.iterdir())


def test_colours_are_taken_in_rgb_whatever_the_model_takes():
    model_cfg = dense("RetinaHead")
    model_cfg["data_preprocessor"] = dict(model_cfg["data_preprocessor"], bgr_to_rgb=False)
    plan = make_plan(build(model_cfg), DATASET, "backbone")
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    image[..., 0] = 200  # red
    bands = plan.module.image_input(image).images[0, :, 0, 0]
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(bands, (torch.tensor([0.0, 0.0, 200.0]) - mean) / std)
