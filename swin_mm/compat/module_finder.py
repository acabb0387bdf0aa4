"""Supplies modules that no installed package provides, and repairs modules as they are imported.

The first finder stands last in `sys.meta_path`: Python asks it only after every other has said no,
so a module that exists, compiled or not, is always the one that is imported. The second stands
first, and passes on what the ordinary search finds.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class SuppliedModules:
    """A meta path finder for a fixed set of modules, each backed by a source file."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
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


class RepairedModules:
    """A meta path finder that leaves modules as they are found and repairs them once they ran."""

    def __init__(self) -> None:
        self.repairs: dict[str, Callable[[ModuleType], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the ordinary spec, with the repair behind its execution."""
        if name not in self.repairs:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_repair(module: ModuleType) -> None:
                execute(module)
                self.repairs[name](module)

            vars(spec.loader)["exec_module"] = execute_and_repair
        return spec


_REPAIRER = RepairedModules()


def when_imported(name: str, repair: Callable[[ModuleType], None]) -> None:
    """Repairs a module now, where it has been imported, or else when it is.

    So a repair need not import what it repairs, and `import swin_mm` stays quick.

    Args:
        name: dotted module name.
        repair: changes the module in place; must bear to be called again.
    """
    if name in sys.modules:
        repair(sys.modules[name])
    _REPAIRER.repairs[name] = repair
    if _REPAIRER not in sys.meta_path:
        sys.meta_path.insert(0, _REPAIRER)


def explain_replacement(module: str, name: str, ours: object, reason: str) -> tuple[bool, str]:
    """Says whether a repair that puts `ours` in the place of `name` is in effect, and why.

    Args:
        module: dotted name of the module, imported here.
        name: of what is replaced in it.
        ours: what replaces it.
        reason: why it is replaced.
    """
    from importlib import import_module

    try:
        target = import_module(module)
    except ModuleNotFoundError:
        return False, f"{module.partition('.')[0]} is not installed"
    if getattr(target, name) is ours:
        return True, reason
    return False, "swin_mm.compat.install() has not been called"
