"""Python lines of the pages, and the notebook, run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from zoo_server import publish_narrow, serve

from swin_mm.inference import model as module

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with what the pages speak of: a picture, a trained model, weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("street.jpg")
    served = tmp_path / "served"
    served.mkdir()
    with serve(served) as address:
        weights, stock, cfg = publish_narrow(served, address, tmp_path / "narrow.py")
        monkeypatch.setattr(module, "find_weights", lambda name: weights)
        meta = {"cfg": cfg.pretty_text, "dataset_meta": {"classes": tuple(map(str, range(80)))}}
        trained = Path("work_dirs/my_config/best_coco_bbox_mAP_epoch_12.pth")
        trained.parent.mkdir(parents=True)
        torch.save({"state_dict": stock.state_dict(), "meta": meta}, trained)
        yield tmp_path


@pytest.mark.parametrize(
    ("page", "count"), [("README.md", 3), ("docs/index.md", 2), ("docs/inference.md", 1)]
)
def test_python_of_a_page_runs(page, count, folder):
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert len(blocks) >= count
    for number, block in enumerate(blocks[:count]):
        if "_base_ =" in block:
            path = folder / f"config_{number}.py"
            path.write_text(block)
            cfg = Config.fromfile(path)
            with DefaultScope.overwrite_default_scope("mmdet"):
                backbone = MODELS.build(cfg.model.backbone)
            assert type(backbone).__module__.startswith("swin_mm.")
        else:
            exec(compile(block, f"{page}, block {number}", "exec"), {})
    if "street_found.jpg" in "".join(blocks[:count]):
        assert Image.open("street_found.jpg").size == (90, 60)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Its cells in one process, as a notebook has it; lines with `!` go to a shell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    notebook = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    variables: dict = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("!"):
            subprocess.run(source[1:], shell=True, check=True, capture_output=True)
        elif cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec(source, variables)
    assert variables["model"].classes[0] == "circle"
    assert len(variables["found"]) and Path("found.png").is_file()
    assert variables["result"].differences[0].compared
