"""Modules that are supplied where missing, and patched when imported."""

import importlib
import sys

import pytest

from swin_mm.compat import module_finder


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Finders and modules as they were, after each test."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(module_finder._SUPPLIER, "files", dict(module_finder._SUPPLIER.files))
    monkeypatch.setattr(module_finder._PATCHER, "patches", dict(module_finder._PATCHER.patches))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_missing_module_is_supplied(tmp_path):
    (tmp_path / "anywhere.py").write_text("value = 3\n")
    module_finder.supply("demo_supplied", str(tmp_path / "anywhere.py"))
    assert importlib.import_module("demo_supplied").value == 3
    assert module_finder.is_supplied("demo_supplied")


def test_a_module_that_exists_is_not(tmp_path, monkeypatch):
    (tmp_path / "anywhere.py").write_text("value = 3\n")
    (tmp_path / "demo_present.py").write_text("value = 4\n")
    module_finder.supply("demo_present", str(tmp_path / "anywhere.py"))
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("demo_present").value == 4
    assert not module_finder.is_supplied("demo_present")


def test_other_names_are_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("demo_unknown")
    assert not module_finder.is_supplied("demo_unknown")


def increase(module):
    module.value += 1


def test_a_module_is_patched_when_imported_and_again_when_reloaded(tmp_path, monkeypatch):
    (tmp_path / "demo_patched.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module_finder.when_imported("demo_patched", increase)
    assert "demo_patched" not in sys.modules
    module = importlib.import_module("demo_patched")
    assert module.value == 2
    assert importlib.reload(module).value == 2


def test_an_imported_module_is_patched_at_once(tmp_path, monkeypatch):
    (tmp_path / "demo_early.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("demo_early")
    module_finder.when_imported("demo_early", increase)
    assert module.value == 2


def test_a_module_to_patch_may_be_missing():
    module_finder.when_imported("demo_absent", increase)
    with pytest.raises(ModuleNotFoundError, match="demo_absent"):
        importlib.import_module("demo_absent")


class Owner:
    def method(self, value):
        return value

    @staticmethod
    def function(value):
        return value


@pytest.mark.parametrize("name", ["method", "function"])
def test_a_function_is_wrapped_once(name):
    for _ in range(2):
        module_finder.wrap_once(Owner, name, lambda original, *args: 2 * original(*args))
    assert getattr(Owner(), name)(3) == 6
