"""What a measurement was taken with: device, versions, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import swin_mm

PACKAGES = (
    "torch",
    "triton",
    "torchvision",
    "mmengine",
    "mmcv-lite",
    "mmdet",
    "mmsegmentation",
    "timm",
    "transformers",
)
CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(device: torch.device) -> dict[str, object]:
    """Device, threads, versions and commit, for people and for JSON."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "float32 matmul": torch.get_float32_matmul_precision(),
        "python": platform.python_version(),
        "swin_mm": swin_mm.__version__,
        "commit": find_commit(Path(swin_mm.__file__).parent),
        "versions": {name: version for name in PACKAGES if (version := find_version(name))},
    }


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of the CPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def find_version(package: str) -> str | None:
    """The version of a package, or `None` where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_commit(folder: Path) -> str | None:
    """The commit of the checkout that a folder lies in, `-dirty` where files differ from it.

    `None` where there is no checkout, or no git.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
