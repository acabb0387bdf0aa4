"""Finds OpenMMLab's packages and the maintained forks of them installed over one another.

The `onedl-*` distributions have the same modules as OpenMMLab's, and pip does not know: whichever
is installed last overwrites files of the other without a word, and files of both remain.
"""

import warnings
from importlib import metadata

# Of our requirements, the fork that brings the same modules; it counts versions in its own way.
FORKS = {
    "mmengine": "onedl-mmengine",
    "mmcv-lite": "onedl-mmcv",
    "mmdet": "onedl-mmdetection",
    "mmsegmentation": "onedl-mmsegmentation",
}
ALSO = {"mmcv-lite": ("mmcv",), "mmengine": ("mmengine-lite",)}  # further names of the same modules


def find_version(name: str) -> str | None:
    """Version of an installed distribution, None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def find_overlaps() -> dict[str, str]:
    """Forks that are installed beside the original, by the original's name."""
    return {
        original: fork
        for name, fork in FORKS.items()
        if find_version(fork)
        for original in (name, *ALSO.get(name, ()))
        if find_version(original)
    }


def describe_overlaps(overlaps: dict[str, str]) -> str:
    """What is wrong, and which packages are right for whom, in one line."""
    originals, forks = " ".join(overlaps), " ".join(overlaps.values())
    install = "pip install --force-reinstall --no-deps"
    return (
        f"{originals} and their forks {forks} are installed over one another's files. OpenMMLab's "
        f"are right for most, and what swin_mm is tested with: pip uninstall -y {forks} && "
        f"{install} {originals}. If other code of yours needs the forks: pip uninstall -y "
        f"{originals} && {install} {forks}"
    )


def warn_of_overlaps() -> None:
    """Warns where originals and forks are both installed."""
    if overlaps := find_overlaps():
        warnings.warn(describe_overlaps(overlaps), stacklevel=2)
