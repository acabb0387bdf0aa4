"""The module that `import pkg_resources` gives where it is not installed: what mmengine uses of it.

Built on `importlib.metadata`. `declare_namespace` is here because old namespace packages call it
when `import pkg_resources` succeeds, and manage without when it fails.
"""

import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from pkgutil import extend_path
from typing import NoReturn


class DistributionNotFound(Exception):
    """No distribution of this name is installed."""


class Distribution:
    """An installed distribution, by its name as in `pip install`.

    Raises:
        DistributionNotFound: It is not installed.
    """

    def __init__(self, name: str) -> None:
        try:
            self._metadata = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise DistributionNotFound(f"The {name!r} distribution was not found") from error
        self.project_name = self._metadata.metadata["Name"]
        self.version = self._metadata.version

    @property
    def location(self) -> str:
        """The folder that holds the distribution's packages: that of its metadata.

        An editable install leaves the packages with their sources.
        """
        installed = Path(str(self._metadata.locate_file(""))).absolute()
        for module in self._top_level():
            if not (installed / module).exists():
                spec = find_spec(module)
                if spec is not None and spec.submodule_search_locations:
                    return str(Path(next(iter(spec.submodule_search_locations))).parent)
        return str(installed)

    def has_metadata(self, name: str) -> bool:
        """Whether the distribution has a metadata file of this name, e.g. `top_level.txt`."""
        return self._metadata.read_text(name) is not None

    def get_metadata(self, name: str) -> str:
        """The text of a metadata file; raises FileNotFoundError where there is none."""
        text = self._metadata.read_text(name)
        if text is None:
            raise FileNotFoundError(f"{self.project_name} {self.version} has no {name}")
        return text

    def _top_level(self) -> list[str]:
        """Names of the distribution's packages."""
        if self.has_metadata("top_level.txt"):
            return self.get_metadata("top_level.txt").split()
        return [self.project_name.replace("-", "_").lower()]


get_distribution = Distribution


def declare_namespace(name: str) -> None:
    """Lets several folders of `sys.path` contribute to the package of this name."""
    package = sys.modules[name]
    package.__path__ = extend_path(package.__path__, name)


def fixup_namespace_packages(path_item: str, parent: str | None = None) -> None:
    """Does nothing: packages declared here look their folders up anew when imported.

    pytest's `monkeypatch.syspath_prepend` calls it wherever `pkg_resources` has been imported.
    """


def __getattr__(name: str) -> NoReturn:
    raise AttributeError(
        f"pkg_resources.{name} is not available: pkg_resources is not installed, and swin_mm "
        "stands in with what mmengine uses of it. Install it with: pip install 'setuptools<82'"
    )
