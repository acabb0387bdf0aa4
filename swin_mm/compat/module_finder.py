"""Supplies modules that no installed package provides, and patches modules as they are imported.

The first finder stands last in `sys.meta_path`: Python asks it only after every other has said no,
so a module that exists, compiled or not, is always the one that is imported. The second stands
first, and passes on what the ordinary search finds. So a patch need not import what it patches, and
`import swin_mm` stays quick.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NamedTuple

PATCHED = "_swin_mm_patched"


class SuppliedModules:
    """A meta path finder for a fixed set of modules, each backed by a source file."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.files:
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, self.files[name])


class PatchedModules:
    """A meta path finder that leaves modules as they are found and patches them once they ran."""

    def __init__(self) -> None:
        self.patches: dict[str, Callable[[ModuleType], None]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.patches:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                self.patches[name](module)

            vars(spec.loader)["exec_module"] = execute_and_patch
        return spec


_SUPPLIER = SuppliedModules()
_PATCHER = PatchedModules()


def supply(name: str, file: str) -> None:
    """Makes `import name` execute the Python source `file` where no other finder knows `name`.

    The parent package of the dotted name must exist.
    """
    _SUPPLIER.files[name] = file
    if _SUPPLIER not in sys.meta_path:
        sys.meta_path.append(_SUPPLIER)


def is_supplied(name: str) -> bool:
    """Whether `import name` gives, or has given, the module of this package. Imports its parent."""
    from importlib.util import find_spec

    spec = find_spec(name)
    return spec is not None and spec.origin == _SUPPLIER.files.get(name)


def when_imported(name: str, patch: Callable[[ModuleType], None]) -> None:
    """Patches a module in place now, where it has been imported, or else when it is.

    `patch` may be called again.
    """
    if name in sys.modules:
        patch(sys.modules[name])
    _PATCHER.patches[name] = patch
    if _PATCHER not in sys.meta_path:
        sys.meta_path.insert(0, _PATCHER)


def wrap_once(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    """Puts `wrapper(original, *args)` in the place of a function or method, unless it is there."""
    original = getattr(owner, name)
    if hasattr(original, PATCHED):
        return

    @wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(patched, PATCHED, True)
    is_static = isinstance(vars(owner).get(name), staticmethod)
    setattr(owner, name, staticmethod(patched) if is_static else patched)


class Patch(NamedTuple):
    """A fault of another package, and what is done about it.

    Attributes:
        name: For `swin-mm doctor`.
        reason: The fault, in one line.
        modules: What patches a module, by the module's name; it may be called again.
        prepare: Called by `install` as well; may be called again.
        why_not: Gives the reason where the patch is not in effect here.
    """

    name: str
    reason: str
    modules: Mapping[str, Callable[[ModuleType], None]] = {}
    prepare: Callable[[], None] = lambda: None
    why_not: Callable[[], str | None] = lambda: None

    def install(self) -> None:
        """Puts the patch in place, now or when what it patches is imported."""
        self.prepare()
        for name, patch in self.modules.items():
            when_imported(name, patch)

    def explain(self) -> tuple[bool, str]:
        """Says whether the patch is in effect, and why."""
        reason = self.why_not()
        return reason is None, reason or self.reason
