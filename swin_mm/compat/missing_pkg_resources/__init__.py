"""Stands in for `pkg_resources` where it is not installed.

For mmengine 0.10, whose `mmengine.utils.package_utils` imports it to find out where a package is:
config bases such as `mmdet::_base_/default_runtime.py` are resolved so. setuptools 82 dropped
`pkg_resources`, and virtual environments of Python 3.12 and later come without setuptools.
"""

from pathlib import Path

from swin_mm.compat.module_finder import is_supplied, supply

NAME = "pkg_resources"


def install() -> None:
    """Makes `pkg_resources` importable; a real one, where present, is found first."""
    supply(NAME, str(Path(__file__).with_name("stand_in.py")))


def explain() -> tuple[bool, str]:
    """Says whether the stand-in is in use, and why."""
    if is_supplied(NAME):
        return True, "setuptools has no pkg_resources, which mmengine imports to find packages"
    return False, "pkg_resources is installed"
