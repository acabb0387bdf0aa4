"""Puts back `pkgutil.find_loader`, which Python 3.14 removed.

For mmengine 0.10 and mmcv(-lite) 2.0 to 2.2, which ask it whether `mmcv._ext` exists.
"""

import pkgutil
from importlib.abc import Loader


def find_loader(name: str) -> Loader | None:
    """The loader of a module, or None where there is no such module."""
    from importlib.util import find_spec

    spec = find_spec(name)
    return None if spec is None else spec.loader


def install() -> None:
    """Adds the function where it is missing."""
    if not hasattr(pkgutil, "find_loader"):
        vars(pkgutil)["find_loader"] = find_loader


def explain() -> tuple[bool, str]:
    """Says whether the function is ours, and why."""
    if pkgutil.find_loader is find_loader:
        return True, "Python 3.14 removed pkgutil.find_loader, which mmengine and mmcv call"
    return False, "this Python has pkgutil.find_loader"
