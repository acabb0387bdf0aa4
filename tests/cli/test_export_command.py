"""Options of `swin-mm export`."""

import pytest
import torch

from swin_mm.cli import export
from swin_mm.export.plan import ExportError
from swin_mm.export.write import ExportResult


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--size", "512"], "must be HEIGHTxWIDTH in pixels, got '512'"),
        (["--batch", "0"], "must be a whole number above 0"),
        (["--format", "tflite"], "invalid choice: 'tflite' (choose from 'onnx', 'openvino', "),
    ],
    ids=str,
)
def test_options_must_make_sense(option, message, capsys):
    with pytest.raises(SystemExit):
        export.parse_args(["a", "b", *option])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.txt"], "must end in one of"),
        (["--out", "a.onnx", "--format", "openvino"], "a file of openvino ends in .xml, got 'a.on"),
        (["--size", "16x64"], r"size must be \(H, W\) from 32 pixels, got \(16, 64\)"),
        (["--format", "torch", "--half"], "half and int8 are for onnx and openvino"),
    ],
)
def test_wrong_wishes_are_refused_before_anything_is_loaded(options, message, tmp_path):
    checkpoint = tmp_path / "weights.pth"
    torch.save({"state_dict": {}}, checkpoint)
    with pytest.raises(ExportError, match=message):
        export.main(["mask_rcnn_swin_mini_shapes", str(checkpoint), *options])


def test_size_is_height_and_width():
    assert export.parse_args(["a", "b", "--size", "512x768"]).size == (512, 768)


def test_accuracy_before_and_after_is_printed(tmp_path, capsys):
    (tmp_path / "a.xml").write_bytes(b"0" * 2**20)
    (tmp_path / "a.bin").write_bytes(b"0" * 2**20)
    metadata = dict(task="detection", size=None, batch=None, min_side=65, outputs=["boxes"])
    metadata["precision"] = "int8"
    metadata["metrics"] = {"coco/bbox_mAP": [0.616, 0.6142]}
    export.report(ExportResult(tmp_path / "a.xml", metadata, []))
    text = capsys.readouterr().out
    assert "coco/bbox_mAP: 0.616 in float32, 0.6142 in int8" in text
    assert "(2.0 MiB)" in text
