"""UPerNet as a file beside UPerNet in PyTorch."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_models import DATASET, build, upernet

from swin_mm.export import runtime
from swin_mm.export.check import draw_example
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import ExportedModel
from swin_mm.export.write import export_model


@pytest.mark.slow
def test_label_maps_equal_the_models_at_three_sizes(tmp_path):
    plan = make_plan(build(upernet(), "mmseg"), DATASET, "model")
    result = export_model(plan, tmp_path / "model.onnx", list("abcde"))
    metadata, differences = result.metadata, result.differences
    assert len({d.size[1:] for d in differences}) == 3
    assert all(d.values["share of pixels"] == 0 for d in differences)
    assert all(d.compared == d.size[0] * d.size[1] * d.size[2] for d in differences)
    found = ExportedModel(tmp_path / "model.onnx")
    assert found.metadata == metadata
    assert (found.metadata["task"], found.metadata["classes"]) == (
        "semantic segmentation",
        list("abcde"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    _run_without_torch(found, tmp_path)


def _run_without_torch(model, folder):
    """A copy of the runtime, in a process where neither torch nor swin_mm can be imported."""
    shutil.copy(runtime.__file__, folder / "runtime.py")
    image = draw_example(90, 130, 3, seed=5)
    Image.fromarray(image).save(folder / "image.png")
    code = """if True:
        import sys
        sys.modules.update(torch=None, torchvision=None, swin_mm=None, mmengine=None, cv2=None)
        import numpy
        from runtime import ExportedModel
        found = ExportedModel("model.onnx").predict("image.png")
        numpy.save("found.npy", found.label_map)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
    assert np.array_equal(np.load(folder / "found.npy"), model.predict(image).label_map)


def test_sliding_windows_are_refused():
    model = build(upernet(mode="slide", crop_size=(64, 64), stride=(32, 32)), "mmseg")
    with pytest.raises(ExportError, match="model.test_cfg.mode=whole"):
        make_plan(model, DATASET, "model")
