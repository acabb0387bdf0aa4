"""Answers imports of modules that no installed package provides.

The finder stands last in `sys.meta_path`: Python asks it only after every other finder has said no,
so a module that exists, compiled or not, is always the one that is imported.
"""

import sys
from importlib.machinery import ModuleSpec


class SuppliedModules:
    """A meta path finder for a fixed set of modules, each backed by a source file."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        """Returns the spec of a supplied module, and None for every other name."""
        if name not in self.files:
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, self.files[name])


_FINDER = SuppliedModules()


def supply(name: str, file: str) -> None:
    """Makes `import name` execute `file` where no other finder knows `name`.

    Args:
        name: dotted module name, e.g. `mmcv._ext`. Its parent package must exist.
        file: path of the Python source that becomes the module.
    """
    _FINDER.files[name] = file
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


def is_supplied(name: str) -> bool:
    """Whether `import name` gives, or has given, the module of this package. Imports its parent."""
    from importlib.util import find_spec

    spec = find_spec(name)
    return spec is not None and spec.origin == _FINDER.files.get(name)
