"""What pip makes of the package."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools.build_meta import *; globals()[sys.argv[1]](sys.argv[2])"


@pytest.fixture
def clone(tmp_path):
    """A clone in a folder of the package's name."""
    pytest.importorskip("setuptools", minversion="70")
    folder = tmp_path / "parent" / "swin_mm"
    copytree(ROOT / "swin_mm", folder / "swin_mm", ignore=ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        copy(ROOT / name, folder)
    return folder


def build(clone: Path, out: Path, kind: str) -> zipfile.ZipFile:
    out.mkdir()
    command = [sys.executable, "-c", BUILD, kind, str(out)]
    subprocess.run(command, cwd=clone, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_an_editable_install_is_found_beside_the_clone(clone, tmp_path):
    """Code in the folder above the clone finds the package and not the folder."""
    site = tmp_path / "site"
    build(clone, tmp_path / "out", "build_editable").extractall(site)
    code = f"import site; site.addsitedir({str(site)!r}); import swin_mm; print(swin_mm.__file__)"
    # What .pth files of site-packages add is left out: the tests' own installation.
    packages = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.append({packages!r}); {code}"],
        cwd=clone.parent,
        env={"PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(clone / "swin_mm" / "__init__.py"), done.stderr


def test_a_wheel_has_the_package_alone(clone, tmp_path):
    names = build(clone, tmp_path / "out", "build_wheel").namelist()
    assert {name.partition("/")[0] for name in names} == {"swin_mm", "swin_mm-0.1.0.dist-info"}
    assert "swin_mm/.mim/configs/mask_rcnn_swin_t.py" in names
    assert "swin_mm/py.typed" in names
