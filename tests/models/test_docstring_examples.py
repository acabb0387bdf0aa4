"""Examples in docstrings run, and print what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = ["backbones.swin", "backbones.swin_v2", "layers.attention", "necks.bifpn", "necks.fpn"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    failed, tried = doctest.testmod(import_module(f"swin_mm.models.{name}"))
    assert tried and not failed
