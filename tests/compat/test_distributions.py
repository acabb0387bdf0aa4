"""OpenMMLab's packages and their forks over one another, as files of metadata say."""

import subprocess
import sys
from pathlib import Path

import pytest

from swin_mm.compat import distributions

ROOT = Path(__file__).parents[2]


def install(folder: Path, *names: str) -> None:
    for name in names:
        info = folder / f"{name.replace('-', '_')}-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")


@pytest.mark.parametrize(
    ("forks", "expected"),
    [
        ([], {}),
        (["onedl-mmdetection"], {"mmdet": "onedl-mmdetection"}),
        (["onedl-mmcv", "mmcv"], {"mmcv-lite": "onedl-mmcv", "mmcv": "onedl-mmcv"}),
    ],
    ids=lambda value: " ".join(value) or "none",
)
def test_what_lies_over_one_another(tmp_path, monkeypatch, forks, expected):
    """The originals are those that the tests run with."""
    install(tmp_path, *forks)
    monkeypatch.syspath_prepend(tmp_path)
    assert distributions.find_overlaps() == expected


def test_forks_alone_are_fine(monkeypatch):
    versions = dict.fromkeys(distributions.FORKS.values(), "1.0")
    monkeypatch.setattr(distributions, "find_version", versions.get)
    assert distributions.find_overlaps() == {}


def test_the_import_warns_in_one_line(tmp_path):
    install(tmp_path, "onedl-mmengine")
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", "import swin_mm"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""},
    )
    assert done.returncode == 0
    line = done.stderr.partition("UserWarning: ")[2].splitlines()[0]
    assert "mmengine and their forks onedl-mmengine are installed over" in line
    assert "pip uninstall -y onedl-mmengine && " in line
    assert line.endswith("pip install --force-reinstall --no-deps onedl-mmengine")
