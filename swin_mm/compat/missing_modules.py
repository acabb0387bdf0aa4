"""Supplies what mmengine and mmcv import and newer versions of Python or setuptools lack.

- `pkgutil.find_loader`, which Python 3.14 removed. mmengine 0.10 and mmcv(-lite) 2.0 to 2.2 ask it
  whether `mmcv._ext` exists.
- `pkg_resources`, which setuptools 82 dropped; virtual environments of Python 3.12 and later come
  without setuptools. mmengine 0.10 finds packages by it, for bases such as `mmdet::...`.
- The warning of setuptools 80 and 81 that `pkg_resources` is to go: users can do nothing about it.
"""

import pkgutil
import warnings
from importlib.abc import Loader
from pathlib import Path

from swin_mm.compat.module_finder import Patch, is_supplied, supply

NAME = "pkg_resources"
WARNING = "pkg_resources is deprecated as an API"


def find_loader(name: str) -> Loader | None:
    """The loader of a module, or None where there is no such module."""
    from importlib.util import find_spec

    spec = find_spec(name)
    return None if spec is None else spec.loader


def _add_find_loader() -> None:
    if not hasattr(pkgutil, "find_loader"):
        vars(pkgutil)["find_loader"] = find_loader


PATCHES = (
    Patch(
        "missing_pkg_resources",
        "setuptools has no pkg_resources, which mmengine imports to find packages",
        prepare=lambda: supply(NAME, str(Path(__file__).with_name("pkg_resources_shim.py"))),
        why_not=lambda: None if is_supplied(NAME) else "pkg_resources is installed",
    ),
    Patch(
        "pkg_resources_warning",
        "mmengine imports pkg_resources, which may warn that it is to go",
        prepare=lambda: warnings.filterwarnings("ignore", message=WARNING),
    ),
    Patch(
        "missing_find_loader",
        "Python 3.14 removed pkgutil.find_loader, which mmengine and mmcv call",
        prepare=_add_find_loader,
        why_not=lambda: (
            None if pkgutil.find_loader is find_loader else "this Python has pkgutil.find_loader"
        ),
    ),
)
