"""Packages of AOTInductor: what they compute, and that nothing in them runs unasked."""

from zipfile import ZipFile

import pytest
import torch
from PIL import Image
from tiny_models import DATASET, build, upernet

import swin_mm
from swin_mm.cli import predict
from swin_mm.export import operators, package
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import METADATA_RECORD, ExportedModel
from swin_mm.export.write import Lower, export_model


def draw_boxes(*shape: int) -> torch.Tensor:
    corner, sides = 60 * torch.rand(*shape, 2), 30 * torch.rand(*shape, 2) + 2
    return torch.cat([corner, corner + sides], dim=-1)


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.97, 1.0], ids=str)  # 1.0: none is left
def test_one_nms_for_all_classes_and_images(threshold):
    torch.manual_seed(0)
    boxes, scores = draw_boxes(2, 40) - 20, torch.rand(2, 3, 40)
    limits = 0.3, threshold, 40
    expected = operators.suppress(boxes, scores, *limits)
    assert torch.equal(package.suppress(boxes, scores, *limits), expected)
    assert (expected > 0).any() == (threshold < 1)
    assert ((scores > threshold).sum() > (expected > 0).sum()) == (threshold < 0.9)


@pytest.fixture
def archive(tmp_path):
    """What is no package, but has the form of one."""
    with ZipFile(tmp_path / "a.pt2", "w") as file:
        file.writestr("a/version", "3")
        file.writestr("a/data/weights/b", b"123")
    return tmp_path / "a.pt2"


def test_metadata_are_replaced(archive, tmp_path):
    first, second = tmp_path / "first.pt2", tmp_path / "second.pt2"
    package.write_package(archive, first, dict(task="detection"))
    package.write_package(first, second, dict(task="features"))
    with ZipFile(second) as file:
        assert file.namelist() == ["a/version", "a/data/weights/b", f"a/{METADATA_RECORD}"]
        assert file.read("a/data/weights/b") == b"123"
        assert file.read(f"a/{METADATA_RECORD}") == b'{"task": "features"}'


def test_code_runs_only_where_it_is_trusted(archive, tmp_path, monkeypatch):
    def run(path):
        raise AssertionError("the code in the file has run")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", run)
    package.write_package(archive, tmp_path / "b.pt2", dict(task="detection"))
    for load in (swin_mm.load, ExportedModel):
        with pytest.raises(ValueError, match="holds compiled code.*if you know who made.*--trust"):
            load(tmp_path / "b.pt2")
        with pytest.raises(ValueError, match="the code in the file has run"):
            load(tmp_path / "b.pt2", trust=True)
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="--trust"):
        predict.main([str(tmp_path / "b.pt2"), str(tmp_path / "a.png")])
    with pytest.raises(ValueError, match="has no metadata of swin_mm"):
        swin_mm.load(archive, trust=True)


def test_packages_are_of_float32(tmp_path):
    plan = make_plan(build(upernet(), "mmseg"), DATASET, "model")
    with pytest.raises(ExportError, match="half and int8 are for onnx and openvino"):
        export_model(plan, tmp_path / "a.pt2", lower=Lower("half"))


class Boxes(torch.nn.Module):
    """What a package cannot take from PyTorch's own operators, with sizes that depend on values."""

    def forward(self, boxes, scores, large, small):
        kept = operators.suppress(boxes, scores, 0.3, 0.5, 40)
        levels = (kept[:, 0] > 0).long()
        pooled = operators.pool_rois([large, small], boxes, levels, [0.25, 0.125], [3, 3], 2, True)
        return kept, pooled


@pytest.mark.slow
def test_compiled_code_takes_any_number_of_boxes(tmp_path):
    def draw(count: int, num_boxes: int) -> list[torch.Tensor]:
        maps = torch.randn(count, 3, 24, 24), torch.randn(count, 3, 12, 12)
        return [draw_boxes(count, num_boxes), torch.rand(count, 2, num_boxes), *maps]

    torch.manual_seed(0)
    any_size = torch.export.Dim.DYNAMIC
    shapes = ({0: any_size, 1: any_size}, {0: any_size, 2: any_size}, {0: any_size}, {0: any_size})
    recorded = torch.export.export(Boxes(), tuple(draw(2, 20)), dynamic_shapes=shapes, strict=False)
    package.compile_package(recorded, tmp_path / "a.pt2")
    package.write_package(tmp_path / "a.pt2", tmp_path / "b.pt2", dict(task="none"))
    run = torch._inductor.aoti_load_package(str(tmp_path / "b.pt2"))
    # None is kept where all scores are halved, and one of a single one.
    for count, num_boxes, factor in ((2, 20, 1.0), (1, 33, 1.0), (2, 7, 0.5), (1, 1, 1.0)):
        inputs = draw(count, num_boxes)
        inputs[1] *= factor
        if num_boxes == 1:
            inputs[1][0] = torch.tensor([[0.9], [0.1]])
        expected = Boxes()(*inputs)
        assert ((expected[0] > 0).sum() > 1) == (num_boxes > 7)
        torch.testing.assert_close(tuple(run(*inputs)), expected)
