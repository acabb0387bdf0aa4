"""UPerNet as a file beside UPerNet in PyTorch."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image
from tiny_models import DATASET, allowed_operators, build, upernet, used_operators

from swin_mm.export import runtime
from swin_mm.export.check import draw_example
from swin_mm.export.plan import ExportError, make_plan
from swin_mm.export.runtime import ExportedModel
from swin_mm.export.write import export_model

RESIZED = dict(
    DATASET,
    pipeline=[
        dict(type="LoadImageFromFile"),
        dict(type="Resize", scale=(200, 120), keep_ratio=True),
        dict(type="PackSegInputs"),
    ],
)


@pytest.mark.slow
def test_label_maps_equal_the_models_at_three_sizes(tmp_path):
    model = build(upernet(), "mmseg")
    plan = make_plan(model, RESIZED, "model")
    result = export_model(plan, tmp_path / "model.onnx", list("abcde"))
    metadata, differences = result.metadata, result.differences
    assert len({d.size[1:] for d in differences}) == 3
    assert all(d.values["share of pixels"] == 0 for d in differences)
    # Label maps are of the images' own size, and of another where images are resized.
    assert [d.compared for d in differences] == [256 * 320, 2 * 240 * 280, 152 * 376]
    found = ExportedModel(tmp_path / "model.onnx")
    assert found.metadata == metadata
    assert used_operators(tmp_path / "model.onnx") <= allowed_operators()
    assert (found.metadata["task"], found.metadata["classes"]) == (
        "semantic segmentation",
        list("abcde"),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    _compare_on_a_file(model, found, tmp_path)
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


def _compare_on_a_file(model, found, folder):
    """From a file to a label map of its size, by the runtime and by mmseg's pipeline."""
    Image.fromarray(draw_example(91, 133, 3, seed=2)).save(folder / "image.png")
    data = Compose(RESIZED["pipeline"])({"img_path": str(folder / "image.png")})
    expected = model.test_step(pseudo_collate([data]))[0].pred_sem_seg.data[0].numpy()
    label_map = found.predict(folder / "image.png").label_map
    assert label_map.shape == expected.shape == (91, 133)
    # Resizing rounds some pixels differently.
    assert (label_map != expected).sum() <= 12


def test_sliding_windows_are_refused():
    model = build(upernet(mode="slide", crop_size=(64, 64), stride=(32, 32)), "mmseg")
    with pytest.raises(ExportError, match="model.test_cfg.mode=whole"):
        make_plan(model, DATASET, "model")
