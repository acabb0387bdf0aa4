"""`pkgutil.find_loader` where Python no longer has it."""

import importlib
import inspect
import pkgutil
import sys

import pytest

from swin_mm.compat import missing_find_loader


@pytest.mark.parametrize("caller", ["mmcv.utils.ext_loader", "mmengine.utils.dl_utils.misc"])
def test_upstream_still_calls_it(caller):
    """Fails when the repair is no longer needed."""
    assert "pkgutil.find_loader(" in inspect.getsource(importlib.import_module(caller))


def test_it_is_put_back_where_missing(monkeypatch):
    monkeypatch.delattr(pkgutil, "find_loader", raising=False)
    missing_find_loader.install()
    assert pkgutil.find_loader("json") is importlib.util.find_spec("json").loader
    assert pkgutil.find_loader("no_such_module") is None
    assert missing_find_loader.explain()[0]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 has no find_loader of its own")
def test_pythons_own_is_left_alone():
    missing_find_loader.install()
    assert pkgutil.find_loader is not missing_find_loader.find_loader
    assert missing_find_loader.explain() == (False, "this Python has pkgutil.find_loader")
