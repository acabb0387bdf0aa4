"""The warning of a `pkg_resources` that is still installed."""

import inspect
import subprocess
import sys
import warnings

from mmengine.utils import package_utils

from swin_mm.compat import pkg_resources_warning

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


def test_explain():
    with warnings.catch_warnings():
        pkg_resources_warning.install()
        assert pkg_resources_warning.explain()[0]
        warnings.resetwarnings()
        assert pkg_resources_warning.explain() == (
            False,
            "warnings have been reset since swin_mm was imported",
        )
