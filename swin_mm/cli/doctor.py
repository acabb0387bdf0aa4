"""`swin-mm doctor`: what is installed, what swin_mm makes of it, and how to fix what is wrong."""

import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, metadata
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.text import Text

from swin_mm import compat
from swin_mm.cli.parser import CommandParser
from swin_mm.compat.distributions import ALSO, FORKS, describe_overlaps, find_version
from swin_mm.compat.module_finder import is_supplied
from swin_mm.console import PlainConsole, make_table

DISTRIBUTION = "swin-mm"
# Modules whose import shows whether the packages fit together, in the order they build on another.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision.ops",
    "mmengine": "mmengine",
    "mmcv-lite": "mmcv.ops",
    "mmdet": "mmdet",
    "mmsegmentation": "mmseg",
}
ANY = "any"  # version of a package
NVIDIA_DRIVER = "/proc/driver/nvidia/version"


class Fault(NamedTuple):
    """Something wrong, and the command that fixes it."""

    problem: str
    command: str


class Package(NamedTuple):
    """A required package: the range needed, what was found, and whether that will do."""

    name: str
    needed: str
    found: str
    fault: Fault | None


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; returns 1 when a fault was found."""
    CommandParser(description=__doc__).parse_args(argv)
    console = PlainConsole()
    try:
        packages = list(check_packages())
    except metadata.PackageNotFoundError:
        fault = Fault("swin-mm is not installed, so that its needs are unknown", _pip("-e ."))
        return _conclude(console, [fault])
    faults = [package.fault for package in packages if package.fault]
    faults += check_imports({package.name: package for package in packages})
    faults += check_gpu()
    console.print(make_table(map(_package_row, packages), ("", "found", "needed"), "Packages"))
    console.print(make_table(describe_machine(), title="Machine"))
    if "mmcv.ops" in sys.modules:
        found = [(patch.name, *patch.explain()) for patch in compat.PATCHES]
        rows = [(name, "yes" if is_active else "no", why) for name, is_active, why in found]
        console.print(make_table(rows, ("", "in effect", "why"), "Patches of other packages"))
    if "torch" in sys.modules:
        import torch

        from swin_mm.heads.ops import nms
        from swin_mm.ops import dispatch

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rows = [*dispatch.explain(), nms.explain(device)]
        columns = ("operator", "implementation", "why")
        console.print(make_table(rows, columns, "Implementations that 'auto' uses"))
    return _conclude(console, faults)


def check_packages() -> Iterator[Package]:
    """Compares what is installed with what the metadata of swin-mm, if installed, asks for."""
    supported = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    found = platform.python_version()
    fault = None
    if not SpecifierSet(supported).contains(found, prereleases=True):
        fault = Fault(
            f"Python {found} is not supported, {supported} is",
            f"uv venv --python 3.12 && uv pip install {DISTRIBUTION}",
        )
    yield Package("python", supported, found, fault)
    for text in metadata.requires(DISTRIBUTION) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _check_package(requirement)


def _check_package(requirement: Requirement) -> Package:
    name, needed = requirement.name, str(requirement.specifier) or ANY
    install = _pip(_quoted(Package(name, needed, "", None)))
    names = (name, *ALSO.get(name, ()))
    installed = {n: version for n in names if (version := _version(n)) is not None}
    fork = FORKS.get(name, "")
    version = _version(fork)
    if version and not installed:
        return Package(name, needed, f"{version} ({fork})", None)
    if not installed:
        return Package(name, needed, "-", Fault(f"{name} is not installed", install))
    found = ", ".join(v if n == name else f"{v} ({n})" for n, v in installed.items())
    fault = None
    if version:
        found = f"{found}, {version} ({fork})"
        overlaps = dict.fromkeys(installed, fork)
        originals = " ".join(installed)
        fault = Fault(
            describe_overlaps(overlaps),
            f"{_pip(fork, 'uninstall -y')} && {_pip(f'--force-reinstall --no-deps {originals}')}",
        )
    elif len(installed) > 1:
        both = " ".join(installed)
        fault = Fault(
            f"{' and '.join(installed)} are both installed, each over the other's files",
            f"{_pip(both, 'uninstall -y')} && {install}",
        )
    elif not all(requirement.specifier.contains(v, prereleases=True) for v in installed.values()):
        fault = Fault(f"{name} {found} is installed, {needed} is needed", install)
    return Package(name, needed, found, fault)


def check_imports(packages: Mapping[str, Package]) -> list[Fault]:
    """Imports the packages that the models are made of; each knows itself what it does not fit.

    The first import that fails is a fault, unless the package has one already. Those after it build
    on it and are not tried.
    """
    for name, module in MODULES.items():
        try:
            import_module(module)
        except Exception as error:  # whatever a broken package raises at import
            if packages[name].fault:
                return []
            reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
            command = _pip(f"--force-reinstall --no-deps {_quoted(packages[name])}")
            if name == "mmcv-lite":
                # A compiled extension made for another PyTorch; swin_mm's own needs none.
                command = f"{_pip('mmcv', 'uninstall -y')} && {command}"
            return [Fault(f"{module} cannot be imported: {reason}", command)]
    return []


def check_gpu() -> list[Fault]:
    """Finds out whether a GPU lies idle because PyTorch cannot use it."""
    torch = sys.modules.get("torch")
    if torch is None or not os.path.exists(NVIDIA_DRIVER) or torch.cuda.is_available():
        return []
    if torch.version.cuda is None:
        reason = f"PyTorch {torch.__version__} is built without CUDA"
    else:
        reason = f"PyTorch {torch.__version__} needs a driver for CUDA {torch.version.cuda}"
    # The builds on PyPI are for CUDA; the address of one for an older driver is on this page.
    return [
        Fault(
            f"there is an NVIDIA driver, but no GPU can be used: {reason}",
            f"{_pip('--force-reinstall torch torchvision')}"
            "  # for an older driver see https://pytorch.org/get-started/locally",
        )
    ]


def describe_machine() -> list[tuple[str, str]]:
    """Names and values: system, processors, GPUs, compilers of kernels, mmcv's extension."""
    rows = [
        ("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"),
        ("interpreter", sys.executable),
    ]
    torch = sys.modules.get("torch")
    if torch is not None:
        rows.append(("PyTorch's CUDA", torch.version.cuda or "none: built for the CPU"))
        gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        for index, gpu in enumerate(gpus):
            memory = gpu.total_memory / 2**30
            text = f"{gpu.name}, {memory:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"
            rows.append((f"GPU {index}", text))
        if not gpus:
            rows.append(("GPU", "none"))
    rows.append(("Triton", _version("triton") or "not installed"))
    if "mmcv.ops" in sys.modules:
        origin = "swin_mm's" if is_supplied("mmcv._ext") else "compiled"
        rows.append(("mmcv._ext", f"{origin}: {sys.modules['mmcv._ext'].__file__}"))
    return rows


def _conclude(console: PlainConsole, faults: Sequence[Fault]) -> int:
    """Prints the faults and returns the exit status."""
    if not faults:
        console.print("No fault found.", style="green")
        return 0
    console.print(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} found:", style="red")
    for fault in faults:
        console.print(f"- {fault.problem}. Fix it with:", soft_wrap=True)
        console.print(f"    {fault.command}", soft_wrap=True, style="bold")
    return 1


def _package_row(package: Package) -> tuple[str, Text, str]:
    style = "red" if package.fault else "green"
    return package.name, Text(package.found, style), package.needed


def _version(name: str) -> str | None:
    return find_version(name) if name else None


def _quoted(package: Package) -> str:
    """The requirement on a package as an argument of pip."""
    return shlex.quote(package.name + (package.needed if package.needed != ANY else ""))


def _pip(arguments: str, action: str = "install") -> str:
    """A command line for the pip of this interpreter."""
    return f"{shlex.quote(sys.executable)} -m pip {action} {arguments}"


if __name__ == "__main__":
    sys.exit(main())
