"""Modules and functions that are gone, and the warning of one that is still installed."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
from mmengine.utils import package_utils

from swin_mm.compat import missing_modules

FIND_LOADER = missing_modules.PATCHES[2]

# As in setuptools 81, with what mmengine uses of it.
PKG_RESOURCES = """\
import warnings
warnings.warn("pkg_resources is deprecated as an API. See https://setuptools.pypa.io", UserWarning)
class DistributionNotFound(Exception): pass
def get_distribution(name): raise DistributionNotFound(name)
"""
CODE = """\
import sys, warnings
sys.path.insert(0, sys.argv[1])
import {module}
from mmengine.utils import is_installed
assert is_installed("json")
warnings.warn("another")
"""


def errors(tmp_path, module):
    (tmp_path / "pkg_resources.py").write_text(PKG_RESOURCES)
    command = [sys.executable, "-c", CODE.format(module=module), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_mmengine_still_shows_it(tmp_path):
    """Fails when the repair is no longer needed."""
    assert "import pkg_resources" in inspect.getsource(package_utils)
    assert "pkg_resources is deprecated" in errors(tmp_path, "mmengine")


def test_it_is_silenced_and_no_other(tmp_path):
    shown = errors(tmp_path, "swin_mm")
    assert "pkg_resources is deprecated" not in shown
    assert "another" in shown


@pytest.mark.parametrize("caller", ["mmcv.utils.ext_loader", "mmengine.utils.dl_utils.misc"])
def test_upstream_still_calls_it(caller):
    """Fails when the repair is no longer needed."""
    assert "pkgutil.find_loader(" in inspect.getsource(importlib.import_module(caller))


def test_it_is_put_back_where_missing(monkeypatch):
    monkeypatch.delattr(pkgutil, "find_loader", raising=False)
    FIND_LOADER.install()
    assert pkgutil.find_loader("json") is importlib.util.find_spec("json").loader
    assert pkgutil.find_loader("no_such_module") is None
    assert FIND_LOADER.explain()[0]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 has no find_loader of its own")
def test_pythons_own_is_left_alone():
    FIND_LOADER.install()
    assert pkgutil.find_loader is not missing_modules.find_loader
    assert FIND_LOADER.explain() == (False, "this Python has pkgutil.find_loader")
