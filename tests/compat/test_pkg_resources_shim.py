"""The shim for `pkg_resources`, with a real one, where present, out of sight."""

import subprocess
import sys
from pathlib import Path

import pytest

from swin_mm.compat import missing_modules
from swin_mm.compat import pkg_resources_shim as shim

HIDE = (
    "from importlib.machinery import PathFinder\n"
    "_find = PathFinder.find_spec\n"
    "PathFinder.find_spec = lambda name, path=None, target=None: (\n"
    "    None if name == 'pkg_resources' else _find(name, path, target))\n"
)


def run(code):
    result = subprocess.run([sys.executable, "-c", HIDE + code], capture_output=True, text=True)
    return result.returncode, result.stderr


def test_mmengine_still_needs_pkg_resources():
    """Fails when the shim is no longer needed."""
    status, message = run("from mmengine.utils import is_installed; is_installed('numpy')")
    assert status != 0
    assert "No module named 'pkg_resources'" in message


@pytest.mark.slow
def test_mmengine_finds_packages():
    status, message = run(
        "import swin_mm\n"
        "from mmengine.utils import get_installed_path, is_installed\n"
        "import mmdet, mmseg, os\n"
        "assert is_installed('mmdet') and is_installed('numpy') and not is_installed('nowhere')\n"
        "assert get_installed_path('mmdet') == os.path.dirname(mmdet.__file__)\n"
        "assert get_installed_path('mmsegmentation') == os.path.dirname(mmseg.__file__)\n"
        "assert get_installed_path('swin_mm') == os.path.dirname(swin_mm.__file__)\n"
    )
    assert status == 0, message


def test_configs_inherit_from_installed_packages():
    status, message = run(
        "import swin_mm\n"
        "from mmengine.config import Config\n"
        "base = ['mmdet::_base_/default_runtime.py', 'mmseg::_base_/datasets/ade20k.py']\n"
        "for name in base:\n"
        "    text = f'_base_ = {name!r}'\n"
        "    assert len(Config.fromstring(text, '.py')) > 3\n"
    )
    assert status == 0, message


def test_explain_says_that_it_is_in_use():
    status, message = run(
        "import swin_mm\n"
        "from swin_mm.compat import missing_modules\n"
        "active, reason = missing_modules.PATCHES[0].explain()\n"
        "assert active and 'mmengine' in reason, reason\n"
    )
    assert status == 0, message


def test_a_real_one_goes_first(tmp_path, monkeypatch):
    (tmp_path / "pkg_resources.py").touch()
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)  # of an earlier test
    monkeypatch.syspath_prepend(tmp_path)
    assert missing_modules.PATCHES[0].explain() == (False, "pkg_resources is installed")


def make_distribution(folder, name, modules=None):
    """Metadata of an installed distribution; `modules` is the text of top_level.txt."""
    info = folder / f"{name.replace('-', '_')}-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    if modules is not None:
        (info / "top_level.txt").write_text(modules)


def make_package(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").touch()


@pytest.mark.parametrize("asked", ["demo-parts", "demo_parts", "Demo.Parts"])
def test_names_are_normalised(tmp_path, monkeypatch, asked):
    make_distribution(tmp_path, "demo-parts", "demo_lib\n")
    make_package(tmp_path, "demo_lib")
    monkeypatch.syspath_prepend(tmp_path)
    found = shim.get_distribution(asked)
    assert (found.project_name, found.version) == ("demo-parts", "1.5")
    assert Path(found.location) == tmp_path
    assert found.has_metadata("top_level.txt") and not found.has_metadata("nothing.txt")
    assert found.get_metadata("top_level.txt").split("\n")[0] == "demo_lib"
    with pytest.raises(FileNotFoundError, match="demo-parts 1.5 has no nothing.txt"):
        found.get_metadata("nothing.txt")


@pytest.mark.parametrize("modules", ["demo_lib\n", None], ids=["top_level", "name_alone"])
def test_an_editable_install_is_where_its_sources_are(tmp_path, monkeypatch, modules):
    site, sources = tmp_path / "site", tmp_path / "project" / "src"
    make_distribution(site, "demo-lib", modules)
    make_package(sources, "demo_lib")
    monkeypatch.syspath_prepend(sources)
    monkeypatch.syspath_prepend(site)
    assert Path(shim.get_distribution("demo-lib").location) == sources


def test_a_distribution_of_single_files_is_where_its_metadata_is(tmp_path, monkeypatch):
    make_distribution(tmp_path, "demo-file", "demo_file\n")
    (tmp_path / "demo_file.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert Path(shim.get_distribution("demo-file").location) == tmp_path


def test_a_missing_distribution_is_named():
    with pytest.raises(shim.DistributionNotFound, match="'no-such-thing'"):
        shim.get_distribution("no-such-thing")


def test_anything_else_is_refused_with_the_cure():
    with pytest.raises(AttributeError, match=r"pkg_resources\.require .*setuptools<82"):
        shim.require  # noqa: B018


def test_namespace_packages_still_work(tmp_path, monkeypatch):
    """They run `declare_namespace` when pkg_resources imports, so it must be there."""
    for part in ("one", "two"):
        folder = tmp_path / part / "demo_namespace"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(
            "from swin_mm.compat import pkg_resources_shim\n"
            "pkg_resources_shim.declare_namespace(__name__)\n"
        )
        (folder / f"{part}.py").touch()
        monkeypatch.syspath_prepend(tmp_path / part)
    import demo_namespace.one
    import demo_namespace.two

    assert len(demo_namespace.__path__) == 2


def test_pytest_can_still_change_the_path(monkeypatch, tmp_path):
    """It asks `pkg_resources`, once imported, to look at namespace packages again."""
    monkeypatch.setitem(sys.modules, "pkg_resources", shim)
    monkeypatch.syspath_prepend(tmp_path)
    assert sys.path[0] == str(tmp_path)
